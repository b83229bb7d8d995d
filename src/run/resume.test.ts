/**
 * Resuming: what a run takes from its checkpoint, what it refuses, and what it detects in a damaged
 * file.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { reportOf, tryRun } from "../../test/support/runs.ts";
import { csv } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { mlp } from "../nn/index.ts";
import { adamw, cosine, sgd } from "../optimizer/index.ts";
import { readSafetensors, readSafetensorsHeader, writeSafetensors } from "../safetensors/index.ts";
import type { RunEvent } from "../telemetry/index.ts";
import { defineRun, type RunOptions } from "./run.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const rows = (count: number, scale = 1) =>
  `x,label\n${Array.from({ length: count }, (_, i) => `${Math.sin(i) * scale},${i % 2}`).join("\n")}\n`;
const files = { "rows.csv": rows(24) };

const options: RunOptions = {
  name: "rows",
  model: mlp({ inputs: [1], hidden: [4], outputs: 2 }),
  data: csv("rows.csv", { heldOut: 0 }),
  optimizer: adamw({ learningRate: 0.01, betas: [0.9, 0.99] }),
  batch: 8,
  steps: 6,
};
const run = defineRun(options);
const atStep = (step: number) => (event: RunEvent) => event.type === "step" && event.step === step;

for (const [name, change] of [
  ["microBatches", { microBatches: 2 }],
  ["learningRate", { optimizer: adamw({ learningRate: 0.02, betas: [0.9, 0.99] }) }],
  ["optimizer", { optimizer: adamw({ learningRate: 0.01, betas: [0.8, 0.99] }) }],
  ["optimizer", { optimizer: adamw({ learningRate: 0.01, betas: [0.9, 0.99], decay: {} }) }],
  ["schedule", { schedule: cosine({}) }],
  ["clipNorm", { clipNorm: 1 }],
  ["reproducible", { reproducible: false }],
  ["model", { model: mlp({ inputs: [1], hidden: [4], outputs: 2, activation: "tanh" }) }],
  ["data", { data: csv("rows.csv", { heldOut: 0.5 }) }],
] as const) {
  test(`a different ${name} is refused by name, or accepted on request and reported`, () =>
    withFolder(files, async (folder) => {
      await tryRun(run, { engine, folder, stopAt: atStep(2) });
      const other = defineRun({ ...options, ...change });
      const resume = { engine, folder, beginning: "resume" } as const;
      await assert.rejects(tryRun(other, resume), {
        code: "CHECKPOINT",
        message: new RegExp(`with ${name}.*--change ${name}\\.`, "s"),
      });
      const { events } = await tryRun(other, { ...resume, changes: [name] });
      const told = events.find((event) => event.type === "changed");
      assert.ok(told?.type === "changed" && told.step === 2);
      assert.ok(told.changes.every((found) => found.name.startsWith(name)));
    }));
}

test("added rows and changed values make different data", () =>
  withFolder(files, async (folder) => {
    await tryRun(run, { engine, folder, stopAt: atStep(2) });
    for (const text of [rows(32), rows(24, 1.5)]) {
      writeFileSync(join(folder, "rows.csv"), text);
      await assert.rejects(tryRun(run, { engine, folder, beginning: "resume" }), {
        message: /with data 24 samples, 0 held out, content \w+, but this run has (24|32) samples/,
      });
    }
  }));

test("a run with a constant learning rate may be prolonged", () =>
  withFolder(files, async (folder) => {
    await tryRun(run, { engine, folder });
    const longer = defineRun({ ...options, steps: 9 });
    const { events } = await tryRun(longer, { engine, folder, beginning: "resume" });
    assert.ok(!events.some(({ type }) => type === "changed"));
    assert.equal(reportOf(join(folder, "out")).steps, 9);
  }));

test("micro-batches that were stated once stay those of the run", () =>
  withFolder(files, async (folder) => {
    const stated = defineRun({ ...options, microBatches: 2 });
    const [whole, out] = [join(folder, "whole"), join(folder, "out")];
    await tryRun(stated, { engine, folder, out: whole });
    await tryRun(stated, { engine, folder, out, stopAt: atStep(3) });
    await tryRun(run, { engine, folder, out, beginning: "resume" });
    assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
  }));

test("after a divergence before the first checkpoint, the run continues with a lower learning rate", () =>
  withFolder({ "rows.csv": rows(24, 1e3) }, async (folder) => {
    const wild = { ...options, optimizer: sgd({ learningRate: 1e25 }), checkpointEvery: 100 };
    await assert.rejects(tryRun(defineRun(wild), { engine, folder }), { code: "NOT_FINITE" });
    const tame = { ...options, optimizer: sgd({ learningRate: 0 }) };
    const { events } = await tryRun(defineRun(tame), { engine, folder, beginning: "resume" });
    const told = events.find((event) => event.type === "changed");
    assert.ok(told?.type === "changed");
    assert.deepEqual(told.changes, [{ name: "learningRate", before: "1e+25", now: "0" }]);
    assert.ok(existsSync(join(folder, "out/checkpoint.safetensors")));
  }));

test("a flipped bit in a tensor or in the head of a checkpoint is found", () =>
  withFolder(files, async (folder) => {
    await tryRun(run, { engine, folder, stopAt: atStep(2) });
    const path = join(folder, "out/checkpoint.safetensors");
    const good = readFileSync(path);
    const { entries } = await readSafetensorsHeader(path);
    const resume = () => tryRun(run, { engine, folder, beginning: "resume" });
    for (const { name, start, end } of entries) {
      const bad = Buffer.from(good);
      const at = Math.floor((start + end - 1) / 2);
      bad[at] = (bad[at] as number) ^ 4;
      writeFileSync(path, bad);
      await assert.rejects(resume(), (error: Error) => {
        assert.ok(error.message.includes(`damaged: the tensor "${name}"`), error.message);
        return true;
      });
    }
    const step = good.indexOf('"step":"2"');
    const bad = Buffer.from(good);
    bad[step + 8] = "3".charCodeAt(0);
    writeFileSync(path, bad);
    await assert.rejects(resume(), { code: "CHECKPOINT", message: /damaged: its head/ });
    writeFileSync(path, good);
    assert.equal((await resume()).result.outcome, "finished");
  }));

test("a checkpoint of an older version is resumed, with a warning about what it does not record", () =>
  withFolder(files, async (folder) => {
    await tryRun(run, { engine, folder, stopAt: atStep(2) });
    const path = join(folder, "out/checkpoint.safetensors");
    const { tensors } = await readSafetensors(path);
    const old = { format: "lockstep-checkpoint-1", step: "2", seconds: "1", trainLoss: "1" };
    await writeSafetensors(path, tensors, { ...old, seed: "1", batch: "8", optimizer: "adamw" });
    const { events } = await tryRun(run, { engine, folder, beginning: "resume" });
    const notice = events.find((event) => event.type === "notice");
    assert.ok(notice?.type === "notice" && /older version/.test(notice.text));
    await writeSafetensors(path, tensors, { ...old, seed: "2", batch: "8", optimizer: "adamw" });
    const resume = tryRun(run, { engine, folder, beginning: "resume" });
    await assert.rejects(resume, { message: /with seed 2, but this run has 1/ });
  }));
