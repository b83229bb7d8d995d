/**
 * A rank is lost in the middle of a step, at one of its runs after the other: the others finish the step
 * or make it again, and the bits are those of one process. What the last run of the lost rank has
 * written stays half done in its memory, as when a process is killed.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { createOrtEngine, type Device } from "../src/engine/index.ts";
import type { ModelDefinition } from "../src/nn/index.ts";
import { adamw, muon, type Optimizer } from "../src/optimizer/index.ts";
import {
  createTrainer,
  joinTrainer,
  type Trainer,
  type TrainerOptions,
} from "../src/train/index.ts";
import { Dead, type Mortal, mortal } from "./support/mortal.ts";
import { type SimulatedRanks, simulatedRanks } from "./support/ranks.ts";
import { CONVOLUTION, GPT, stepOf } from "./support/small-models.ts";
import { bitsOf } from "./support/steps.ts";

const cpu = createOrtEngine({ threads: 1 });
after(() => cpu.close());

const SAMPLES = 4;
const RANKS = 3;
/** The step in which a rank is lost, and the number of steps. */
const LOSS = 1;
const STEPS = 3;
/** Each of the last runs of a step, which are those of its end and its commit, is tried. */
const LAST = 8;
/** Of the runs before, every fifth is: nothing is decided yet, so all of them are alike. */
const EARLY = 5;

type Work = readonly [ModelDefinition, Optimizer, Pick<TrainerOptions, "zero" | "parallel">];

const WORK: Readonly<Record<string, Work>> = {
  "gpt, data": [GPT, adamw({ learningRate: 1e-2 }), { parallel: { data: RANKS } }],
  "gpt, zero 1": [GPT, adamw({ learningRate: 1e-2 }), { zero: 1 }],
  "gpt, zero 2": [GPT, adamw({ learningRate: 1e-2 }), { zero: 2 }],
  "gpt, zero 3": [GPT, adamw({ learningRate: 1e-2 }), { zero: 3 }],
  "gpt, muon": [GPT, muon({ learningRate: 1e-2 }), {}],
  "resnet, zero 1": [CONVOLUTION, adamw({ learningRate: 1e-2 }), { zero: 1 }],
  "resnet, zero 3": [CONVOLUTION, adamw({ learningRate: 1e-2 }), { zero: 3 }],
};

function optionsOf(
  engine: Device,
  [model, optimizer, sharing]: Work,
  group?: SimulatedRanks["groups"][number],
): TrainerOptions {
  const { parallel, ...rest } = sharing;
  const size = group?.size ?? 1;
  return {
    ...rest,
    ...(parallel === undefined ? {} : { parallel: { data: size } }),
    engine,
    model: model.build({ batch: 1, mode: "train" }),
    optimizer,
    clip: 1,
    microBatches: SAMPLES,
    ranks: group && { group, adapt: false },
  };
}

const step = (trainer: Trainer) => stepOf(trainer, SAMPLES);

async function alone(work: Work): Promise<Record<string, string>> {
  const trainer = await createTrainer(optionsOf(cpu, work));
  while (trainer.steps < STEPS) await step(trainer);
  const result = await bitsOf(trainer);
  trainer.close();
  return result;
}

async function meet(work: Work) {
  const met = simulatedRanks(cpu, RANKS, true);
  const mortals: readonly Mortal[] = met.groups.map(() => mortal(cpu));
  const trainers = await Promise.all(
    met.groups.map((group, rank) =>
      createTrainer(optionsOf((mortals[rank] as Mortal).device, work, group)),
    ),
  );
  for (let made = 0; made < LOSS; made++) await Promise.all(trainers.map(step));
  return { met, mortals, trainers };
}

/** The runs of each rank in the step in which one is lost. */
async function runsOf(work: Work): Promise<number[]> {
  const { met, mortals, trainers } = await meet(work);
  for (const own of mortals) own.dieAt(Number.POSITIVE_INFINITY);
  await Promise.all(trainers.map(step));
  for (const trainer of trainers) trainer.close();
  await met.close();
  return mortals.map(({ deeds }) => deeds.length);
}

/**
 * Loses the victim at a run of a step, or after it, and goes on with the others and a newcomer.
 * Returns the bits at the end, and the steps that were committed when they met again.
 */
async function lose(work: Work, victim: number, run: number) {
  const { met, mortals, trainers } = await meet(work);
  mortals[victim]?.dieAt(run);
  await Promise.allSettled(
    trainers.map(async (trainer, rank) => {
      try {
        await step(trainer);
        if (rank === victim) throw new Dead("it dies after its step");
        await step(trainer);
        assert.fail("a step needs all ranks");
      } catch (error) {
        if (!(error instanceof Dead)) return;
        // The others see that its process has ended.
        met.groups[rank]?.transport.abort(new Error("gone"));
      }
    }),
  );
  const living = trainers.filter((_, rank) => rank !== victim);
  const next = simulatedRanks(cpu, RANKS, true);
  const again = await Promise.all(
    next.groups.map(async (group, rank) => {
      const trainer = living[rank];
      if (trainer === undefined) return (await joinTrainer(optionsOf(cpu, work, group))) as Trainer;
      await trainer.regroup({ group, adapt: false });
      return trainer;
    }),
  );
  await met.close();
  const [first] = again as [Trainer];
  const { steps } = first;
  assert.ok(
    again.every((trainer) => trainer.steps === steps),
    "all are after the same step",
  );
  while (first.steps < STEPS) await Promise.all(again.map(step));
  const found = await Promise.all(again.map(bitsOf));
  for (const own of found) assert.deepEqual(own, found[0], "all ranks are alike");
  for (const trainer of [...again, ...trainers]) trainer.close();
  await next.close();
  return { bits: found[0], steps };
}

describe("a rank that is lost at any run of a step", () => {
  for (const [name, work] of Object.entries(WORK)) {
    test(`${name}: no bit changes`, async () => {
      const expected = await alone(work);
      const outcomes = new Set<number>();
      for (const [victim, runs] of (await runsOf(work)).entries()) {
        if (victim === 1) continue;
        for (let run = 0; run <= runs; run++) {
          if (run < runs - LAST && run % EARLY > 0) continue;
          const { bits, steps } = await lose(work, victim, run);
          assert.deepEqual(bits, expected, `rank ${victim} is lost at run ${run} of ${runs}`);
          outcomes.add(steps);
        }
      }
      assert.deepEqual(
        [...outcomes].sort((a, b) => a - b),
        [LOSS, LOSS + 1],
        "before and after the decision",
      );
    });
  }
});
