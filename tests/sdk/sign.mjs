// Signs webhooks with the providers' own Node.js packages: those that have none for Python.
//
//     node sign.mjs NODE_MODULES
//
// The lines it reads and writes are those of sign.py.
import { answer, load, require, sdk } from "./lines.mjs";

const github = await load("@octokit/webhooks-methods/dist-node/index.js");
require("@shopify/shopify-api/adapters/node");
const { createSHA256HMAC } = require("@shopify/shopify-api/runtime");

const iso = (now) => new Date(now * 1000).toISOString();

const request = (by, headers, body, id, find, replace) => ({
  by: sdk(by),
  method: "POST",
  query: null,
  headers,
  body: Buffer.from(body).toString("hex"),
  events: [id],
  tamper: { part: "body", find, replace },
});

const githubDelivery = async ({ number, secret }, type, encode) => {
  const id = `72d3162e-cc78-11e3-81ab-${String(number).padStart(12, "0")}`;
  const event = { action: "created", sponsorship: { node_id: `S_${number}` }, sender: { id: 1 } };
  const body = encode(JSON.stringify(event));
  const headers = [
    ["content-type", type],
    ["X-GitHub-Event", "sponsorship"],
    ["X-GitHub-Delivery", id],
    ["X-GitHub-Hook-ID", "292430182"],
    ["X-Hub-Signature-256", await github.sign(secret, body)],
  ];
  const by = "@octokit/webhooks-methods";
  return request(by, headers, body, id, "created", "removed");
};

const shopifyOrder = async ({ number, now, secret }, prefix) => {
  const id = `b54557e4-bdd9-4b37-8a5f-${String(number).padStart(12, "0")}`;
  const order = { id: 8209829119461 + number, name: `#${number}`, total_price: "12.50" };
  const body = JSON.stringify({ ...order, currency: "EUR", financial_status: "paid", note: "5 €" });
  const headers = [
    ["content-type", "application/json"],
    [`${prefix}topic`, "orders/paid"],
    [`${prefix}shop-domain`, "shop.myshopify.com"],
    [`${prefix}api-version`, "2026-10"],
    [`${prefix}webhook-id`, id],
    [`${prefix}event-id`, `98880550-7158-44d4-b7cd-${String(number).padStart(12, "0")}`],
    [`${prefix}triggered-at`, iso(now)],
    [`${prefix}hmac-sha256`, await createSHA256HMAC(secret, body)],
  ];
  return request("@shopify/shopify-api", headers, body, id, '"12.50"', '"92.50"');
};

const cases = {
  github: (ask) => githubDelivery(ask, "application/json", (json) => json),
  "github-form": (ask) =>
    githubDelivery(ask, "application/x-www-form-urlencoded", (json) =>
      new URLSearchParams({ payload: json }).toString(),
    ),
  shopify: (ask) => shopifyOrder(ask, "X-Shopify-"),
  "shopify-events": (ask) => shopifyOrder(ask, "shopify-"),
};

await answer((ask) => cases[ask.case](ask));
