/**
 * A rank is lost in the middle of a step, at one of its runs after the other: the others finish the step
 * or make it again, and the bits are those of one process. What the last run of the lost rank has
 * written stays half done in its memory, as when a process is killed. The ranks that have met again
 * train on, and are those that lose the next one.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { createOrtEngine, type Device } from "../src/engine/index.ts";
import type { ModelDefinition } from "../src/nn/index.ts";
import { adamw, muon, type Optimizer } from "../src/optimizer/index.ts";
import {
  createTrainer,
  joinTrainer,
  type Prepared,
  type Trainer,
  type TrainerOptions,
} from "../src/train/index.ts";
import { Dead, type Mortal, mortal } from "./support/mortal.ts";
import { type SimulatedRanks, simulatedRanks } from "./support/ranks.ts";
import { CONVOLUTION, GPT, stepOf } from "./support/small-models.ts";
import { bitsOf } from "./support/steps.ts";
import { Undisturbed } from "./support/undisturbed.ts";

const cpu = createOrtEngine({ threads: 1 });
after(() => cpu.close());

const SAMPLES = 4;
const RANKS = 3;
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

/** Ranks that train together, each in a process of its own that may end. */
interface Ranks {
  readonly met: SimulatedRanks;
  readonly mortals: readonly Mortal[];
  readonly trainers: readonly Trainer[];
}

async function begin(work: Work, prepared: Prepared): Promise<Ranks> {
  const met = simulatedRanks(cpu, RANKS, true);
  const mortals = met.groups.map(() => mortal(cpu));
  const trainers = await Promise.all(
    met.groups.map((group, rank) =>
      createTrainer(optionsOf((mortals[rank] as Mortal).device, work, group), prepared),
    ),
  );
  return { met, mortals, trainers };
}

/** Makes a step that nobody is lost in. Returns the runs of each rank. */
async function wholeStep({ mortals, trainers }: Ranks): Promise<number[]> {
  for (const own of mortals) own.dieAt(Number.POSITIVE_INFINITY);
  await Promise.all(trainers.map(step));
  return mortals.map(({ deeds }) => deeds.length);
}

/** Loses the victim at a run of a step, or after it. Returns the others and a newcomer, who have met. */
async function lose(
  { met, mortals, trainers }: Ranks,
  [victim, run]: readonly [number, number],
  work: Work,
  prepared: Prepared,
): Promise<Ranks> {
  for (const [rank, own] of mortals.entries()) {
    own.dieAt(rank === victim ? run : Number.POSITIVE_INFINITY);
  }
  await Promise.all(
    trainers.map(async (trainer, rank) => {
      try {
        await step(trainer);
        if (rank === victim) throw new Dead("it dies after its step");
        await step(trainer);
        assert.fail("a step needs all ranks");
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        if (!(error instanceof Dead)) return;
        // The others see that its process has ended.
        met.groups[rank]?.transport.abort(new Error("gone"));
      }
    }),
  );
  const generation = (met.groups[0]?.transport.generation ?? 0) + 1;
  const next = simulatedRanks(cpu, RANKS, true, undefined, { generation });
  const again = next.groups.map(async (group, rank): Promise<[Mortal, Trainer]> => {
    const [own, trainer] = [mortals[rank] as Mortal, trainers[rank] as Trainer];
    if (rank !== victim) {
      own.dieAt(Number.POSITIVE_INFINITY);
      await trainer.regroup({ group, adapt: false });
      return [own, trainer];
    }
    const newcomer = mortal(cpu);
    const joined = await joinTrainer(optionsOf(newcomer.device, work, group), prepared);
    return [newcomer, joined as Trainer];
  });
  const living = await Promise.all(again);
  trainers[victim]?.close();
  await met.close();
  return {
    met: next,
    mortals: living.map(([own]) => own),
    trainers: living.map(([, trainer]) => trainer),
  };
}

async function assertAlike({ trainers }: Ranks, alone: Undisturbed, when: string): Promise<number> {
  const [steps = 0, ...others] = trainers.map((trainer) => trainer.steps);
  for (const other of others) assert.equal(other, steps, `all are after the same step, ${when}`);
  const expected = await alone.after(steps);
  for (const bits of await Promise.all(trainers.map(bitsOf))) {
    assert.deepEqual(bits, expected, when);
  }
  return steps;
}

describe("a rank that is lost at any run of a step", () => {
  for (const [name, work] of Object.entries(WORK)) {
    test(`${name}: no bit changes`, async () => {
      const alone = new Undisturbed(optionsOf(cpu, work), SAMPLES);
      const prepared = await alone.prepared;
      let ranks = await begin(work, prepared);
      await wholeStep(ranks);
      const outcomes = new Set<number>();
      for (const [victim, runs] of (await wholeStep(ranks)).entries()) {
        if (victim === 1) continue;
        for (let run = 0; run <= runs; run++) {
          if (run < runs - LAST && run % EARLY > 0) continue;
          const before = ranks.trainers[0]?.steps ?? 0;
          ranks = await lose(ranks, [victim, run], work, prepared);
          const when = `rank ${victim} is lost at run ${run} of ${runs}`;
          outcomes.add((await assertAlike(ranks, alone, when)) - before);
        }
        await wholeStep(ranks);
        await assertAlike(ranks, alone, "after a whole step");
      }
      assert.deepEqual(
        [...outcomes].sort((a, b) => a - b),
        [0, 1],
        "before and after the decision",
      );
      for (const trainer of ranks.trainers) trainer.close();
      await ranks.met.close();
      await alone.close();
    });
  }
});
