// Verifies webhooks with the providers' own Node.js packages.
//
//     node verify.mjs NODE_MODULES
//
// The lines it reads and writes are those of verify.py. "certificate" is what the URL of the signing
// certificate would serve; "now" is the time to judge by, in seconds since 1970.
import https from "node:https";
import { Readable } from "node:stream";
import { answer, require, sdk } from "./lines.mjs";

const { Paddle } = require("@paddle/paddle-node-sdk");
const { verifyWebhookSignature } = require("hook0-client");
const SnsValidator = require("sns-validator");
const SnsPayloadValidator = require("sns-payload-validator");

const TOLERANCE_S = 300;

// Paddle's package takes nothing older than five seconds, which a busy machine needs to get here.
const SystemDate = Date;
const standStill = (now) => {
  globalThis.Date = class extends SystemDate {
    constructor(...parts) {
      super(...(parts.length > 0 ? parts : [now * 1000]));
    }
  };
};

// Both SNS packages fetch the certificate; here they get it without a network.
const serve = (certificate) => {
  https.get = (_url, ...rest) => {
    const response = Readable.from([certificate]);
    response.statusCode = 200;
    rest.at(-1)(response);
    return { on() {} };
  };
};

const paddle = async ({ secret, headers, body }) => {
  const event = await new Paddle("not used").webhooks.unmarshal(
    body,
    secret,
    headers.get("paddle-signature"),
  );
  if (!event) throw new Error("no event");
};

const hook0 = ({ secret, headers, body }) => {
  const signature = headers.get("x-hook0-signature");
  if (!/,v1=/.test(signature)) throw new Error("no v1 signature");
  verifyWebhookSignature(signature, body, headers, secret, TOLERANCE_S);
};

const snsValidator = ({ certificate, body }) => {
  serve(certificate);
  return new Promise((done, failed) =>
    new SnsValidator().validate(body, (error) => (error ? failed(error) : done())),
  );
};

const snsPayloadValidator = ({ certificate, body }) => {
  serve(certificate);
  // Without its cache, which would keep the certificate of another line.
  return new SnsPayloadValidator({ useCache: false }).validate(body);
};

const cases = {
  paddle: ["@paddle/paddle-node-sdk", paddle],
  "coinbase-cdp": ["hook0-client", hook0],
  "aws-sns": ["sns-validator", snsValidator],
  "aws-sns-payload": ["sns-payload-validator", snsPayloadValidator],
};

await answer(async (ask) => {
  const [name, verify] = cases[ask.case];
  standStill(ask.now);
  const headers = new Headers(ask.headers);
  const body = Buffer.from(ask.body, "hex").toString("utf8");
  try {
    await verify({ ...ask, headers, body });
    return { by: sdk(name), accepted: true, reason: null };
  } catch (error) {
    return { by: sdk(name), accepted: false, reason: String(error.message ?? error) };
  }
});
