// What both Node.js scripts share: the packages of scripts/tools, and lines of JSON in and out.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// The folder node_modules is the first argument: it lies in a cache, not beside these scripts.
const modules = process.argv[2];

export const require = createRequire(join(modules, "index.js"));

// A package that is an ES module alone, by the file it begins with.
export const load = (file) => import(pathToFileURL(join(modules, file)));

export const sdk = (name) => {
  const description = JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8"));
  return `${name} ${description.version}`;
};

// Answers each line of standard input with one line.
export const answer = async (work) => {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await work(JSON.parse(line))));
  }
};
