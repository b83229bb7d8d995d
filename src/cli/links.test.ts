/** What a file of links may say, and that `auto` is to state nothing. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { text } from "../data/index.ts";
import { gpt } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import { defineRun, overrideRun } from "../run/index.ts";
import { readLinks } from "./links.ts";
import { parallel } from "./values.ts";

const folder = mkdtempSync(join(tmpdir(), "lockstep-links-"));
after(() => rmSync(folder, { recursive: true }));

function linksOf(content: string) {
  const file = join(folder, "links.json");
  writeFileSync(file, content);
  return readLinks(file);
}

test("a file of links says speeds of workers and of links, each or none", () => {
  const within = { bandwidth: 8, latency: 800 };
  const said = { gflops: 80, memory: 10, within };
  assert.deepEqual(linksOf(JSON.stringify(said)), said);
  assert.deepEqual(linksOf("{}"), {});
  assert.throws(() => linksOf("{"), /it is not JSON/);
  assert.throws(() => linksOf('{ "gflop": 80 }'), /"gflop"/);
  assert.throws(
    () => linksOf('{ "between": { "bandwidth": 0, "latency": 1 } }'),
    /between\.bandwidth/,
  );
  assert.throws(() => readLinks(join(folder, "none.json")), /cannot be read/);
});

test("auto states no axes, in a run and in place of those of a run", () => {
  const options = {
    model: gpt({ layers: 1, width: 8, heads: 1, context: 4 }),
    data: text("*.txt"),
    optimizer: adamw(),
    batch: 2,
    steps: 1,
  };
  assert.equal(defineRun({ ...options, parallel: "auto" }).parallel, undefined);
  const stated = defineRun({ ...options, parallel: { data: 2 } });
  assert.equal(overrideRun(stated, { parallel: parallel("auto") }).parallel, undefined);
  assert.deepEqual(overrideRun(stated, { parallel: parallel("tensor=2") }).parallel, { tensor: 2 });
});
