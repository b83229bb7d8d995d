/**
 * Runs of a small model on simulated ranks, however they share its step, which are compared with the
 * run of one process.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Group } from "../../src/collectives/index.ts";
import { createOrtEngine } from "../../src/engine/index.ts";
import { gpt, type ModelDefinition } from "../../src/nn/index.ts";
import { adamw, type Optimizer } from "../../src/optimizer/index.ts";
import type { StepGraph } from "../../src/plan/index.ts";
import { elementCount, tensorFrom, toNumbers } from "../../src/tensor/index.ts";
import {
  createTrainer,
  type FillBatch,
  type Trainer,
  type TrainerOptions,
} from "../../src/train/index.ts";
import { withFolder } from "./folder.ts";
import { randomNumbers } from "./random.ts";
import { simulatedRanks } from "./ranks.ts";

const SAMPLES = 8;
const MICRO_BATCHES = 4;
export const CLASSES = 12;
const STEPS = 12;

/** The engine of all ranks; whoever imports this closes it. */
export const engine = createOrtEngine({ threads: 1 });

/** Fills samples that depend on their position alone. */
export function filling(
  ranges: readonly { readonly start: number; readonly end: number }[],
  classes = CLASSES,
): FillBatch {
  const positions = ranges.flatMap(({ start, end }) =>
    Array.from({ length: end - start }, (_, index) => start + index),
  );
  return (into) => {
    for (const [field, tensor] of Object.values(into).entries()) {
      const isClass = tensor.dtype.startsWith("int");
      const width = elementCount(tensor.shape) / positions.length;
      const numbers = positions.flatMap((position) =>
        randomNumbers(field * 1000 + (position % 16), width, [0, isClass ? classes : 1]),
      );
      const values = isClass ? numbers.map(Math.floor) : numbers;
      tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
    }
  };
}

export type Setting = Pick<
  TrainerOptions,
  | "parallel"
  | "zero"
  | "recompute"
  | "timetable"
  | "attention"
  | "microBatches"
  | "offload"
  | "bucketBytes"
>;

/** What is trained, and for how long. */
export interface Making {
  /** Default: 12. */
  readonly steps?: number | undefined;
  readonly optimizer?: Optimizer | undefined;
  /** Integers of the batch are below it. Default: `CLASSES`. */
  readonly classes?: number | undefined;
  readonly offloadFolder?: string | undefined;
  /** The step of one process, if it is known. */
  readonly step?: StepGraph | undefined;
  /** The ranks of each node. Default: one node. */
  readonly nodes?: readonly (readonly number[])[] | undefined;
  /** Looks at the trainer of each rank after each step. */
  readonly look?: ((trainer: Trainer, step: number, rank: number) => Promise<void>) | undefined;
}

export interface Outcome {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly parameters: Readonly<Record<string, readonly number[]>>;
  readonly trainer: Pick<Trainer, "plan" | "planned">;
}

/** The number of ranks that a setting takes. */
export function ranksOf({ parallel = {} }: Setting): number {
  return (Object.values(parallel) as number[]).reduce((product, own) => product * own, 1);
}

export async function train(
  definition: ModelDefinition,
  setting: Setting = {},
  making: Making = {},
): Promise<Outcome[]> {
  const size = ranksOf(setting);
  const simulated = size === 1 ? undefined : simulatedRanks(engine, size, true, making.nodes);
  const trainers = await Promise.all(
    Array.from({ length: size }, (_, rank) =>
      trainerOf(definition, setting, making, simulated?.groups[rank]),
    ),
  );
  const outcomes = await Promise.all(
    trainers.map((trainer, rank) => runSteps(trainer, making, rank)),
  );
  for (const trainer of trainers) trainer.close();
  await simulated?.close();
  return outcomes;
}

/** Trains as one rank of a group, whose others are elsewhere. */
export async function trainIn(
  group: Group,
  definition: ModelDefinition,
  setting: Setting,
  making: Making = {},
): Promise<Outcome> {
  const trainer = await trainerOf(definition, setting, making, group);
  const outcome = await runSteps(trainer, making, group.rank);
  await group.barrier();
  trainer.close();
  return outcome;
}

function trainerOf(
  definition: ModelDefinition,
  setting: Setting,
  { optimizer = adamw({ learningRate: 1e-2 }), offloadFolder, step }: Making,
  group: Group | undefined,
): Promise<Trainer> {
  const { microBatches = MICRO_BATCHES } = setting;
  const model = definition.build({ batch: SAMPLES / microBatches, mode: "train" });
  const ranks = group && { group, adapt: false };
  const own = { engine, model, optimizer, clip: 1, ranks, offloadFolder };
  const prepared = step && { step, close: () => undefined };
  return createTrainer({ ...own, ...setting, microBatches }, prepared);
}

async function runSteps(trainer: Trainer, making: Making, rank: number): Promise<Outcome> {
  const { steps = STEPS, classes, look } = making;
  const [losses, norms]: [number[], number[]] = [[], []];
  for (let step = 0; step < steps; step++) {
    const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
    const fill = filling(trainer.ownPositions(positions), classes);
    const { loss, gradientNorm } = await trainer.step({ positions, fill });
    losses.push(loss);
    norms.push(gradientNorm);
    await look?.(trainer, step, rank);
  }
  const parameters = await parametersOf(trainer, making);
  const numbers = Object.entries(parameters).map(([name, tensor]) => [name, toNumbers(tensor)]);
  return { losses, norms, parameters: Object.fromEntries(numbers), trainer };
}

/** Where parts lie on several nodes, rank 0 has all of them. */
async function parametersOf(trainer: Trainer, { nodes }: Making) {
  if (nodes === undefined) return (await trainer.read()).parameters;
  return withFolder({}, async (folder) => {
    await trainer.collect(join(folder, "collected"));
    return trainer.isWhole ? (await trainer.read()).parameters : {};
  });
}

export function assertNear(
  found: readonly number[],
  wanted: readonly number[],
  most: number,
  what: string,
) {
  assert.equal(found.length, wanted.length, what);
  const worst = found.map((own, at) => Math.abs(own - (wanted[at] as number)));
  const scale = Math.max(1e-3, ...wanted.map(Math.abs));
  const distance = Math.max(...worst) / scale;
  assert.ok(distance <= most, `${what}: ${distance} from that of one process`);
}

export const GPT = gpt({ layers: 2, width: 24, heads: 6, context: 12, vocabulary: CLASSES });
/** Its heads share keys and values. */
export const LLAMA = gpt({
  layers: 2,
  width: 24,
  heads: 6,
  kvHeads: 2,
  context: 12,
  vocabulary: CLASSES,
  positions: "rotary",
  activation: "swiglu",
  norm: "rms",
});

interface Near {
  readonly losses: number;
  readonly norms: number;
}

/** Compares each rank of a divided run with one process. */
export async function compare(
  definition: ModelDefinition,
  setting: Setting,
  near: Near = { losses: 1e-4, norms: 1e-3 },
): Promise<readonly Outcome[]> {
  const alone = await aloneOf(definition);
  const where = JSON.stringify(setting);
  const outcomes = await train(definition, setting);
  for (const outcome of outcomes) {
    assert.deepEqual(outcome.losses, outcomes[0]?.losses, `${where}: all ranks have one loss`);
    assertNear(outcome.losses, alone.losses, near.losses, `${where}: losses`);
    assertNear(outcome.norms, alone.norms, near.norms, `${where}: norms`);
    assert.deepEqual(outcome.parameters, outcomes[0]?.parameters, `${where}: one state`);
  }
  return outcomes;
}

const known = new WeakMap<ModelDefinition, Promise<Outcome>>();

function aloneOf(definition: ModelDefinition): Promise<Outcome> {
  const found = known.get(definition) ?? train(definition).then(([alone]) => alone as Outcome);
  known.set(definition, found);
  return found;
}
