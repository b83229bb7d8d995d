/**
 * The plan of a rank as people read it: a text file that shows every change.
 * `LOCKSTEP_GOLDEN=write` writes it anew.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { text } from "../../src/data/index.ts";
import { gpt } from "../../src/nn/index.ts";
import { adamw } from "../../src/optimizer/index.ts";
import { defineRun, describePlan } from "../../src/run/index.ts";

const file = fileURLToPath(new URL("../../../test/golden/plan.txt", import.meta.url));

const run = defineRun({
  model: gpt({ layers: 2, width: 128, heads: 4, context: 64, vocabulary: 256 }),
  data: text("*.txt"),
  optimizer: adamw({ learningRate: 1e-3 }),
  batch: 32,
  microBatches: 8,
  clipNorm: 1,
  steps: 10,
});
const speeds = { flopsPerSecond: 80e9, bytesPerSecond: 1e9, latency: 1e-4 };

test("the plan of a rank equals the golden one", () => {
  const plans = [
    describePlan(run, { workers: 3, rank: 1, speeds }),
    describePlan(run, { workers: 2, rank: 0, machines: 2, speeds, bucketBytes: 400_000 }),
    describePlan(run, { workers: 1, rank: 0, speeds }),
  ].join("\n");
  if (process.env["LOCKSTEP_GOLDEN"] === "write") writeFileSync(file, plans);
  assert.equal(plans, readFileSync(file, "utf8"));
});

test("a plan for more workers than micro-batches is refused where they are to have whole ones", () => {
  const wanted = { workers: 9, rank: 0, speeds, parallel: { data: 9 } };
  assert.throws(() => describePlan(run, wanted), { code: "INVALID_OPTION" });
});

test("a plan of 1,024 ranks is made in a moment", () => {
  const many = defineRun({ ...run.stated, batch: 1024, microBatches: 1024 });
  const plan = describePlan(many, { workers: 1024, rank: 1023, machines: 1024, speeds });
  assert.match(plan, /rank 1023: micro-batches 1023 to 1023/);
  const all = { workers: 1024, rank: 1023, machines: 128, speeds };
  const shared = describePlan(many, { ...all, parallel: { shard: 1024 } });
  assert.match(shared, /zero stage 3 over "shard"/);
});

test("a plan says what each way to share the step would take, and why it is this one", () => {
  const wanted = { workers: 8, rank: 0, machines: 2, speeds };
  assert.match(describePlan(run, wanted), /zero 1 within each node .* \(chosen\)/);
  const tight = describePlan(run, { ...wanted, memory: 98e6 });
  assert.match(
    tight,
    /because zero 1 within each node would take \d+ MB a worker of the 98(\.0)? MB/,
  );
  assert.match(tight, /exposed, a step in .* \(chosen\)/);
  assert.throws(() => describePlan(run, { ...wanted, memory: 1e6 }), { code: "OUT_OF_MEMORY" });
});
