/**
 * Axes that divide a model in several ways at once: ranks that divide matrices or sequences are stages
 * of a pipeline, too. Training follows that of one process, and a checkpoint fits any other mesh.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { gpt, type ModelDefinition } from "../src/nn/index.ts";
import { sgd } from "../src/optimizer/index.ts";
import { defineRun, type Run } from "../src/run/index.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import { toNumbers } from "../src/tensor/index.ts";
import { createTrainer, type Trainer } from "../src/train/index.ts";
import { withFolder } from "./support/folder.ts";
import { simulatedRanks } from "./support/ranks.ts";
import { reportOf, type Trial, textRun, tryRun, WORDS } from "./support/runs.ts";
import {
  assertNear,
  compare,
  engine,
  filling,
  GPT,
  LLAMA,
  type Setting,
} from "./support/shared-runs.ts";

after(() => engine.close());

const RUNS: readonly (readonly [string, ModelDefinition, Setting])[] = [
  [
    "a GPT with tied weights",
    GPT,
    { parallel: { data: 2, pipeline: 2, tensor: 2 }, zero: 1, recompute: "blocks" },
  ],
  ["a Llama with grouped heads", LLAMA, { parallel: { pipeline: 2, context: 2, tensor: 2 } }],
];

for (const [name, definition, setting] of RUNS) {
  test(`${name} trains on ${JSON.stringify(setting)} as one process does`, async () => {
    const [first] = await compare(definition, setting);
    const { divided, held = [] } = first?.trainer.plan ?? {};
    assert.ok((divided?.tensors.size ?? 0) > 10, "tensors are divided");
    assert.ok(held.length > 0, "and lie with the ranks of their stages");
  });
}

/** What one step of plain gradient descent subtracts from each parameter, in float32. */
async function gradientsOf(definition: ModelDefinition, parallel?: Setting["parallel"]) {
  const learningRate = 1e3;
  const [microBatches, samples] = [4, 8];
  const ranks = parallel === undefined ? 1 : 4;
  const simulated = ranks === 1 ? undefined : simulatedRanks(engine, ranks, true);
  const model = definition.build({ batch: samples / microBatches, mode: "train" });
  const optimizer = sgd({ learningRate });
  const numbersOf = async (trainer: Trainer) =>
    Object.entries((await trainer.read()).parameters).map(
      ([name, tensor]) => [name, toNumbers(tensor)] as const,
    );
  const trainers = await Promise.all(
    Array.from({ length: ranks }, (_, rank) => {
      const group = simulated?.groups[rank];
      const of = group && { group, adapt: false };
      return createTrainer({ engine, model, optimizer, microBatches, parallel, ranks: of });
    }),
  );
  const [first] = trainers as [Trainer];
  const before = new Map(await numbersOf(first));
  const positions = { start: 0, end: samples };
  await Promise.all(
    trainers.map((own) => own.step({ positions, fill: filling(own.ownPositions(positions)) })),
  );
  const gradients = (await numbersOf(first)).map(([name, numbers]) => {
    const old = before.get(name) as readonly number[];
    return [name, numbers.map((own, at) => ((old[at] as number) - own) / learningRate)] as const;
  });
  for (const trainer of trainers) trainer.close();
  await simulated?.close();
  return gradients;
}

for (const [name, definition] of [
  ["a GPT", GPT],
  ["a Llama", LLAMA],
] as const) {
  test(`the gradients of ${name} whose matrices and layers are divided are those of one process`, async () => {
    const wanted = await gradientsOf(definition);
    const found = new Map(await gradientsOf(definition, { pipeline: 2, tensor: 2 }));
    for (const [parameter, numbers] of wanted) {
      assertNear(found.get(parameter) ?? [], numbers, 1e-5, `the gradient of ${parameter}`);
    }
  });
}

const run = defineRun({
  ...textRun.stated,
  model: gpt({ layers: 2, width: 16, heads: 2, context: 16, dropout: 0.2 }),
  microBatches: 4,
});

type Sharing = Pick<Run, "parallel" | "zero">;

/** The losses of the steps that a run makes in one way to share them. */
async function lossesOf(sharing: Sharing, ranks: number, trial: Omit<Trial, "engine">) {
  const shared = defineRun({ ...run.stated, ...sharing });
  const simulated = ranks === 1 ? undefined : simulatedRanks(engine, ranks, true);
  const { stopAt, ...others } = trial;
  const tried = await Promise.all(
    Array.from({ length: ranks }, (_, rank) => {
      const group = simulated?.groups[rank];
      const stops = rank === 0 && stopAt !== undefined ? { stopAt } : {};
      const of = group && { ranks: { group, adapt: false } };
      return tryRun(shared, { engine, ...others, ...stops, ...of });
    }),
  );
  await simulated?.close();
  const events = tried[0]?.events ?? [];
  return events.flatMap((event) => (event.type === "step" ? [event.loss] : []));
}

test("a checkpoint of matrices and layers that are divided is one of the whole model", () =>
  withFolder({ "words.txt": WORDS }, async (folder) => {
    const stopAt = (step: number) => (event: RunEvent) =>
      event.type === "step" && event.step === step;
    const whole = join(folder, "whole");
    const wanted = await lossesOf({}, 1, { folder, out: whole });
    const again = { folder, beginning: "resume" } as const;
    const sharded: Sharing = { parallel: { data: 2, tensor: 2 }, zero: 1 };
    const composed: Sharing = { parallel: { pipeline: 2, tensor: 2 } };
    const found = [
      ...(await lossesOf(sharded, 4, { folder, stopAt: stopAt(1) })),
      ...(await lossesOf(composed, 4, { ...again, stopAt: stopAt(4) })),
      ...(await lossesOf({}, 1, again)),
    ];
    assertNear(found, wanted, 1e-4, "losses");
    const [alone, last] = [reportOf(whole), reportOf(join(folder, "out"))];
    const validated = [last.validationLoss as number];
    assertNear(validated, [alone.validationLoss as number], 1e-4, "the validation loss");
  }));
