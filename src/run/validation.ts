/**
 * Loss and measures on held-out samples, computed as if they were one batch. The same samples are
 * used every time, each once, spread over all that is held out; a model with one batch size may use
 * fewer of them. Batches are run one by one, and their sums are added up.
 */
import type { Group } from "../collectives/index.ts";
import type { SampleSet } from "../data/index.ts";
import { assert } from "../errors.ts";
import type { Measure } from "../plan/index.ts";
import type { EvaluationPlan } from "../program/index.ts";
import { interpret } from "../reference/index.ts";
import { elementCount, type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import type { Trainer } from "../train/index.ts";

export interface Validated {
  /** Undefined if no held-out sample has a label that counts. */
  readonly loss: number | undefined;
  /**
   * Other numbers that the model gives, by name. Numbers without a sample that counts are left out.
   */
  readonly measures: Readonly<Record<string, number>>;
}

interface Batch {
  /** The index of the batch's size among the trainer's evaluations. */
  readonly size: number;
  readonly indices: readonly number[];
}

export class Validation {
  readonly #batches: readonly Batch[];
  readonly #plan: EvaluationPlan;
  readonly #samples: SampleSet;
  readonly #trainer: Trainer;

  /** Validates on the samples that the trainer's evaluation is planned for. */
  constructor(samples: SampleSet, trainer: Trainer) {
    const { evaluation } = trainer.plan;
    assert(evaluation !== undefined, "the trainer has a model for evaluation");
    this.#samples = samples;
    this.#trainer = trainer;
    this.#plan = evaluation;
    this.#batches = batchesOf(evaluation, samples.length);
  }

  /** Whether parameters are sent while a batch is evaluated. All workers then evaluate at once. */
  get #isTogether(): boolean {
    const { isHeldInPlace, sides } = this.#trainer.plan;
    return !isHeldInPlace && sides[0].evaluate.some(({ mode }) => mode === "tasks");
  }

  /**
   * The workers of `group` take turns with the batches, and all of them make the same calls.
   * Returns the result on the leader, and on other workers what they computed alone. Returns
   * undefined if a stop was asked for before all batches were done: each worker looks at `asked`
   * after its current batch, unless all evaluate at once.
   */
  async run(group?: Group, asked?: AbortSignal): Promise<Validated | undefined> {
    const { rank, size } = group ?? { rank: 0, size: 1 };
    const width = this.#plan.sizes[0]?.factors.length ?? 0;
    // The last number says whether a worker has skipped batches.
    const sums = new Float64Array(width * this.#batches.length + 1);
    const rounds = Math.ceil(this.#batches.length / size);
    for (let round = 0; round < rounds; round++) {
      const index = round * size + rank;
      const own = this.#batches[index];
      if (asked?.aborted === true && !this.#isTogether) {
        sums[sums.length - 1] = 1;
        break;
      }
      // A worker without a batch of its own evaluates one that is not counted.
      const batch = own ?? (this.#isTogether ? this.#batches[0] : undefined);
      if (batch === undefined) break;
      const read = (into: Parameters<SampleSet["read"]>[1]) =>
        this.#samples.read(batch.indices, into);
      const found = await this.#trainer.evaluate(batch.size, read);
      if (own !== undefined) sums.set(found, index * width);
    }
    if (group !== undefined) await collect(group, sums, width);
    if (sums.at(-1) !== 0) return undefined;
    const totals = Array.from({ length: width }, (_, at) => {
      let total = 0;
      for (let from = at; from < sums.length - 1; from += width) total += sums[from] as number;
      return total;
    });
    return validated(this.#plan, totals);
  }
}

function batchesOf({ samples, sizes }: EvaluationPlan, held: number): Batch[] {
  const all = Array.from({ length: samples }, (_, index) => Math.floor((index * held) / samples));
  const batches: Batch[] = [];
  let start = 0;
  for (const [size, { samples: count }] of sizes.entries()) {
    const isLast = size === sizes.length - 1;
    const end = isLast ? samples : samples - (samples % count);
    for (; start + count <= end; start += count) {
      batches.push({ size, indices: all.slice(start, start + count) });
    }
  }
  return batches;
}

/** Computes the measures from sums over all samples. */
export function validated({ measures }: EvaluationPlan, totals: readonly number[]): Validated {
  let at = 0;
  const found: [string, number][] = [];
  for (const measure of measures) {
    const width = measure.terms.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
    const own = totals.slice(at, at + width);
    at += width;
    const number = numberOf(measure, own);
    if (number !== undefined) found.push([measure.name, number]);
  }
  const [loss] = measures;
  return {
    loss: found.find(([name]) => name === loss?.name)?.[1],
    measures: Object.fromEntries(found.filter(([name]) => name !== loss?.name)),
  };
}

/** Returns undefined if the divisor is 0. */
function numberOf({ terms, tail, counts }: Measure, sums: readonly number[]): number | undefined {
  if (tail === undefined) return sums[0];
  let at = 0;
  const inputs: Record<string, Tensor> = {};
  for (const [index, { type }] of terms.entries()) {
    const values = sums.slice(at, at + elementCount(type.shape));
    at += values.length;
    const wanted = tail.types.get(`term.${index}`);
    if (wanted === undefined) continue;
    if (counts.includes(index) && values[0] === 0) return undefined;
    inputs[`term.${index}`] = tensorFrom(wanted.dtype, wanted.shape, values);
  }
  const results = interpret(tail, inputs);
  return toNumbers(results[tail.outputs[0] ?? ""] as Tensor)[0];
}

/**
 * Collects on rank 0 what the other ranks computed: rank r has every size-th group of `width`
 * numbers, beginning with group r.
 */
async function collect(
  { transport, rank, size }: Group,
  numbers: Float64Array,
  width: number,
): Promise<void> {
  const bytes = (values: Float64Array) => new Uint8Array(values.buffer);
  if (rank > 0) return transport.send(0, bytes(numbers));
  for (let peer = 1; peer < size; peer++) {
    const theirs = new Float64Array(numbers.length);
    await transport.receive(peer, bytes(theirs));
    const last = numbers.length - 1;
    for (let start = peer * width; start < last; start += size * width) {
      numbers.set(theirs.subarray(start, start + width), start);
    }
    numbers[last] = Math.max(numbers[last] as number, theirs[last] as number);
  }
}
