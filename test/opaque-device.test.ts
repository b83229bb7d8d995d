/**
 * Whole runs on a device whose memory cannot be reached as bytes: training with checkpoints,
 * resume, validation, export and ranks that share a step. These tests show that no code reads
 * device memory directly.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { createOrtEngine, createReferenceEngine } from "../src/engine/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import type { Run } from "../src/run/index.ts";
import { readSafetensors } from "../src/safetensors/index.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import { toNumbers } from "../src/tensor/index.ts";
import { withFolder } from "./support/folder.ts";
import { simulatedRanks } from "./support/ranks.ts";
import {
  checkpointsOf,
  imageRun,
  metricsOf,
  plainRun,
  reportOf,
  textRun,
  tryRun,
  WORDS,
} from "./support/runs.ts";

const engine = createReferenceEngine();
const cpu = createOrtEngine({ threads: 1 });
after(() => Promise.all([engine.close(), cpu.close()]));

const files = { "words.txt": WORDS };
const atStep = (step: number) => (event: RunEvent) => event.type === "step" && event.step === step;

function lossesOf(out: string): number[] {
  const steps = metricsOf(out).filter(({ type }) => type === "step");
  return steps.map(({ loss }) => loss ?? Number.NaN);
}

function near(found: number, wanted: number, what: string): void {
  assert.ok(Math.abs(found - wanted) < 1e-4 * Math.max(1, Math.abs(wanted)), `${what}: ${found}`);
}

for (const [run, stopAt] of [
  [textRun, 4],
  [imageRun, 2],
  [plainRun, 2],
] as const) {
  test(`${run.name}: it learns what a CPU learns, resumes from a checkpoint, and exports`, () =>
    withFolder(files, async (folder) => {
      const at = (name: string) => join(folder, name);
      await tryRun(run, { engine: cpu, folder, out: at("cpu") });
      await tryRun(run, { engine, folder, out: at("whole") });
      const [wanted, found] = [lossesOf(at("cpu")), lossesOf(at("whole"))];
      assert.equal(found.length, run.steps);
      for (const [step, loss] of wanted.entries()) near(found[step] ?? 0, loss, `step ${step}`);
      const [one, two] = [reportOf(at("cpu")), reportOf(at("whole"))];
      assert.equal(two.validationLoss === undefined, one.validationLoss === undefined);
      near(two.validationLoss ?? 0, one.validationLoss ?? 0, "validation loss");
      await sameWeights(at("cpu"), at("whole"));

      const stopped = await tryRun(run, {
        engine,
        folder,
        out: at("parts"),
        stopAt: atStep(stopAt),
      });
      assert.equal(stopped.result.outcome, "stopped");
      await tryRun(run, { engine, folder, out: at("parts"), beginning: "resume" });
      assert.equal(reportOf(at("parts")).weightsSha256, two.weightsSha256);
      assert.deepEqual(
        readFileSync(join(at("parts"), "model.onnx")),
        readFileSync(join(at("whole"), "model.onnx")),
      );
    }));
}

async function sameWeights(one: string, two: string): Promise<void> {
  const [a, b] = await Promise.all(
    [one, two].map((out) => readSafetensors(join(out, "model.safetensors"))),
  );
  assert.deepEqual([...(b?.tensors.keys() ?? [])], [...(a?.tensors.keys() ?? [])]);
  for (const [name, tensor] of a?.tensors ?? []) {
    const other = b?.tensors.get(name);
    const values = other === undefined ? [] : toNumbers(other);
    for (const [index, value] of toNumbers(tensor).entries()) {
      assert.ok(Math.abs(value - (values[index] ?? Number.NaN)) < 2e-3, `${name}[${index}]`);
    }
  }
}

/** Tries all ranks of a run in this process. */
async function tryTogether(
  run: Run,
  { folder, out, inPlace }: { folder: string; out: string; inPlace: boolean },
): Promise<void> {
  const { groups, close } = simulatedRanks(engine, 2, inPlace);
  const outcomes = await Promise.all(
    groups.map((group) =>
      tryRun(run, { engine, folder, out, ranks: { group, adapt: false } }).then(
        ({ result }) => result.outcome,
      ),
    ),
  );
  assert.deepEqual(outcomes, ["finished", "followed"]);
  await close();
}

for (const run of [textRun, imageRun]) {
  test(`${run.name}: two ranks, in place and by messages, give the bits of one`, () =>
    withFolder(files, async (folder) => {
      const [alone, inPlace, apart] = ["alone", "in place", "apart"].map((name) =>
        join(folder, name),
      ) as [string, string, string];
      await tryRun(run, { engine, folder, out: alone });
      await tryTogether(run, { folder, out: inPlace, inPlace: true });
      await tryTogether(run, { folder, out: apart, inPlace: false });
      const hashes = [alone, inPlace, apart].map((out) => reportOf(out).weightsSha256);
      assert.deepEqual(hashes, [hashes[0], hashes[0], hashes[0]]);
      assert.deepEqual(checkpointsOf(inPlace).at(-1), run.steps);
    }));
}

test("a loss that is not finite is traced to its tensor", () =>
  withFolder(files, async (folder) => {
    const wild: Run = { ...textRun, optimizer: adamw({ learningRate: 1e30 }) };
    await assert.rejects(tryRun(wild, { engine, folder }), {
      code: "NOT_FINITE",
      message: /^Step \d+: .*not finite is "[^"]+"/,
    });
    const { tensors } = await readSafetensors(join(folder, "out", "model.safetensors"));
    for (const [name, tensor] of tensors) {
      assert.ok(toNumbers(tensor).every(Number.isFinite), name);
    }
  }));
