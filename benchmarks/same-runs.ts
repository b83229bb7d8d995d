/**
 * Trains a model in a way, on simulated ranks of this process, and keeps what is compared: losses,
 * gradients, and the bits of the state at the end.
 */
import type { ModelDefinition } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import type { StepGraph } from "../src/plan/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../src/tensor/index.ts";
import type { Trainer } from "../src/train/index.ts";
import { ranksOf, train } from "../test/support/shared-runs.ts";
import { bitsOf } from "../test/support/steps.ts";
import type { ComparedModel } from "./same-models.ts";
import type { Way } from "./same-ways.ts";

export type Numbers = Readonly<Record<string, readonly number[]>>;

/** One number for all models: large enough to learn, and not so large that rounding grows. */
export const LEARNING_RATE = 1e-3;

export type Tensors = Readonly<Record<string, Tensor>>;

export interface Trained {
  /** The loss of each step. */
  readonly losses: readonly number[];
  /** The gradient of the first step, by parameter. */
  readonly first: Numbers;
  /** The gradient at the weights that one process ends with. */
  readonly later: Numbers;
  /** Parameters and states before the first step. */
  readonly start: Tensors;
  /** Parameters and states at the end. */
  readonly last: Tensors;
  /** A hash of each parameter, slot and state at the end. */
  readonly bits: Readonly<Record<string, string>>;
  /** The step of one process, which all ways share. */
  readonly step: StepGraph | undefined;
  /** The number of tensors of which a rank of the axis `tensor` has a part. */
  readonly divided: number;
}

export interface TrainedOptions {
  readonly steps: number;
  /** Where what is offloaded lies. */
  readonly folder: string;
  /** The weights of the later gradient. Default: those that this run ends with. */
  readonly weights?: Tensors | undefined;
  /** Values to begin with. Default: the model's own. */
  readonly from?: Tensors | undefined;
  /** The step of one process, if it is known. */
  readonly step?: StepGraph | undefined;
}

/** What it keeps after a step is the gradient times a number, where it was zero before. */
export const optimizer = adamw({ learningRate: LEARNING_RATE, weightDecay: 0.01 });

/**
 * Trains for some steps, and makes another one with the weights of one process, which are written as
 * those of a checkpoint are.
 * @throws LockstepError where the way is refused
 */
export async function trained(
  { definition, classes }: ComparedModel,
  way: Way,
  { steps, folder, weights, from, step: known }: TrainedOptions,
): Promise<Trained> {
  const { inProcesses: _, ...setting } = way;
  const meet = meeting(ranksOf(setting));
  const found: Kept = { first: {}, later: {}, start: {}, last: {}, bits: {} };
  const look = async (trainer: Trainer, step: number, rank: number): Promise<void> => {
    if (rank === 0) await keep(found, trainer, { step, steps });
    if (step !== steps - 1) return;
    await meet();
    write(trainer, weights ?? found.last);
    trainer.resumeAt(steps);
    await meet();
  };
  const started = from === undefined ? definition : startingAt(definition, from);
  // Attention that goes round is another step.
  const step = setting.attention === undefined ? known : undefined;
  const making = { steps: steps + 1, classes, optimizer, look, offloadFolder: folder, step };
  const outcomes = await train(started, setting, making);
  const { losses = [], norms, trainer } = outcomes[0] ?? {};
  for (const [rank, other] of outcomes.entries()) {
    if (other.losses.join() === losses.join() && other.norms.join() === norms?.join()) continue;
    throw new Error(`rank ${rank} has other losses or norms than rank 0`);
  }
  const divided = trainer?.plan.divided?.tensors.size ?? 0;
  const made = trainer?.planned.step;
  return { ...found, losses: losses.slice(0, steps), divided, step: made };
}

/** What is kept of the trainer of the first rank. */
interface Kept {
  first: Numbers;
  later: Numbers;
  start: Tensors;
  last: Tensors;
  bits: Trained["bits"];
}

async function keep(
  found: Kept,
  trainer: Trainer,
  { step, steps }: { readonly step: number; readonly steps: number },
): Promise<void> {
  if (step === 0) {
    found.first = await momentsOf(trainer);
    const all: [string, Tensor][] = [];
    for await (const [name, tensor] of trainer.beginning()) all.push([name, copyOf(tensor)]);
    found.start = Object.fromEntries(all);
  }
  if (step === steps - 1) {
    const { parameters, states } = await trainer.read();
    const all = Object.entries({ ...parameters, ...states });
    found.last = Object.fromEntries(all.map(([name, tensor]) => [name, copyOf(tensor)]));
    found.bits = await bitsOf(trainer);
  }
  if (step === steps) found.later = await momentsOf(trainer);
}

/** Returns a function that each rank awaits, and that resolves when all ranks have called it. */
function meeting(ranks: number): () => Promise<void> {
  let waiting: (() => void)[] = [];
  return () =>
    new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length < ranks) return;
      for (const done of waiting) done();
      waiting = [];
    });
}

/** Writes what this rank has of parameters and states, and zeros to what the optimizer keeps. */
function write(trainer: Trainer, values: Tensors): void {
  const parts = trainer.parts();
  for (const { name, from, to } of parts.own()) {
    const [kind, ...rest] = name.split("/");
    const tensor = values[rest.join("/")];
    const isSlot = kind === "slots" || tensor === undefined;
    parts.write(name, from, isSlot ? new Uint8Array(to - from) : tensor.bytes.slice(from, to));
  }
}

async function momentsOf(trainer: Trainer): Promise<Numbers> {
  const { slots } = await trainer.read();
  const moments = Object.entries(slots).flatMap(([name, tensor]): [string, number[]][] => {
    const parameter = /^(.*)\.exp_avg$/.exec(name)?.[1];
    return parameter === undefined ? [] : [[parameter, toNumbers(tensor)]];
  });
  return Object.fromEntries(moments);
}

function copyOf({ dtype, shape, bytes }: Tensor): Tensor {
  return { dtype, shape, bytes: Uint8Array.from(bytes) };
}

/** The same model with these first values. */
function startingAt(definition: ModelDefinition, values: Tensors): ModelDefinition {
  const given = <T extends { readonly name: string }>(all: readonly T[]): T[] =>
    all.map((one) => {
      const tensor = values[one.name];
      return tensor === undefined ? one : { ...one, initializer: { kind: "tensor", tensor } };
    });
  return {
    ...definition,
    build: (options) => {
      const model = definition.build(options);
      return { ...model, parameters: given(model.parameters), states: given(model.states) };
    },
  };
}

/** Each float one rounding away from where it was: an innocent change. */
export function moved(tensors: Tensors): Tensors {
  const all = Object.entries(tensors).map(([name, tensor]) => {
    const { dtype, shape } = tensor;
    const numbers = toNumbers(tensor).map(
      (value, at) => value * (1 + (at % 2 ? 1 : -1) * 2 ** -23),
    );
    return [name, tensorFrom(dtype, shape, numbers)];
  });
  return Object.fromEntries(all) as Tensors;
}

/** The largest difference of a loss, relative to it. */
export function lossDifference(found: readonly number[], wanted: readonly number[]): number {
  return Math.max(
    ...wanted.map((loss, at) => Math.abs((found[at] as number) - loss) / Math.abs(loss)),
  );
}

/**
 * The largest difference of a parameter's gradient: the norm of the difference, relative to the norm
 * of that gradient. A gradient that is nothing but rounding (that of a key's bias, which softmax
 * takes out again) has no relative difference, so norms below a thousandth of the largest count as
 * that.
 */
export function gradientDifference(
  found: Numbers,
  wanted: Numbers,
): { readonly worst: number; readonly name: string } {
  const norms = new Map(Object.entries(wanted).map(([name, own]) => [name, norm(own)]));
  const least = Math.max(...norms.values()) / 1000;
  const all = Object.entries(wanted).map(([name, own]) => {
    const apart = own.map((value, at) => (found[name]?.[at] ?? Number.NaN) - value);
    const worst = norm(apart) / Math.max(norms.get(name) as number, least);
    return { worst: Number.isNaN(worst) ? NO_GRADIENT : worst, name };
  });
  return all.reduce((most, own) => (own.worst > most.worst ? own : most));
}

/** Instead of a difference, where a gradient is missing or has another shape. */
const NO_GRADIENT = 1e9;

function norm(numbers: readonly number[]): number {
  return Math.sqrt(numbers.reduce((sum, value) => sum + value * value, 0));
}
