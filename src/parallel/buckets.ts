/**
 * Buckets: gradients are exchanged in groups, in the order in which they become ready, so that one
 * group is exchanged while the next is computed. After Li et al., "PyTorch Distributed", VLDB 2020.
 */

import {
  type ComputeTask,
  cutWhereReady,
  inOrderMade,
  isOfKind,
  type ReduceTask,
  type StepGraph,
  type StepTask,
  valueOf,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import type { Strategy } from "./strategy.ts";

export interface BucketOptions {
  /**
   * A bucket is closed when it holds this many bytes; the function `bucketBytes` chooses the
   * number.
   */
  readonly bucketBytes: number;
  /**
   * Whether the gradient graph is cut into pieces, so that a bucket is exchanged while the rest is
   * computed. Default: true.
   */
  readonly overlap?: boolean;
}

export function buckets({ bucketBytes: least, overlap = true }: BucketOptions): Strategy {
  return {
    name: `buckets of ${least} bytes${overlap ? ", beside computation" : ""}`,
    rewrite(step) {
      const made = step.tasks.find(
        (task): task is ComputeTask => task.kind === "compute" && task.graph === "gradient",
      );
      const summed = step.tasks.find(isOfKind("reduce"));
      if (made === undefined || summed === undefined) return step;
      const lists = bucketsOf(step, made, least);
      const listed = new Set(lists.flat());
      const others = summed.inputs.filter((name) => !listed.has(name));
      const reduces = lists.map((names, index) =>
        partOf(summed, index === 0 ? [...names, ...others] : names, index, lists.length),
      );
      const whole = { ...step, tasks: replaced(step, summed, reduces) };
      if (!overlap) return whole;
      const { step: cut, pieces } = cutWhereReady(step, made, lists);
      if (pieces.length === 1) return whole;
      return { ...cut, tasks: interleaved(cut, summed, pieces, reduces) };
    },
  };
}

function partOf(task: ReduceTask, names: readonly string[], index: number, of: number): ReduceTask {
  const outputs = names.map((name) => task.outputs[task.inputs.indexOf(name)] as string);
  const name = of === 1 ? task.name : `bucket ${index + 1} of ${of}`;
  return { ...task, name, inputs: names, outputs };
}

function replaced({ tasks }: StepGraph, task: ReduceTask, by: readonly ReduceTask[]): StepTask[] {
  return tasks.flatMap((other): readonly StepTask[] => (other === task ? by : [other]));
}

/** Puts each reduce task directly behind the last piece that makes one of its inputs. */
function interleaved(
  { tasks }: StepGraph,
  summed: ReduceTask,
  pieces: readonly ComputeTask[],
  reduces: readonly ReduceTask[],
): StepTask[] {
  const readyAfter = (reduce: ReduceTask) =>
    pieces.findLastIndex(({ outputs }) => outputs.some((name) => reduce.inputs.includes(name)));
  const after = new Map(
    pieces.map((piece, index) => {
      return [piece, reduces.filter((reduce) => readyAfter(reduce) === index)] as const;
    }),
  );
  return tasks.flatMap((task): readonly StepTask[] => {
    if (task === summed) return [];
    return [task, ...(after.get(task as ComputeTask) ?? [])];
  });
}

/**
 * The outputs of a task that the step sums, in the order in which they are made, grouped into
 * buckets of at least `least` bytes and of one element type.
 */
export function bucketsOf(step: StepGraph, task: ComputeTask, least: number): string[][] {
  const summed = new Set(step.tasks.filter(isOfKind("reduce")).flatMap(({ inputs }) => inputs));
  const names = inOrderMade(step, task).filter((name) => summed.has(name));
  const closed: string[][] = [];
  const open = new Map<string, { names: string[]; bytes: number }>();
  for (const name of names) {
    const { type } = valueOf(step, name);
    const bucket = open.get(type.dtype) ?? { names: [], bytes: 0 };
    open.set(type.dtype, bucket);
    bucket.names.push(name);
    bucket.bytes += byteLength(type);
    if (bucket.bytes < least) continue;
    closed.push(bucket.names);
    open.delete(type.dtype);
  }
  return [...closed, ...[...open.values()].map((bucket) => bucket.names)];
}

export interface Link {
  /** Seconds until the first byte of a collective arrives. */
  readonly latency: number;
  /** Bytes of a collective's result that each rank receives per second. */
  readonly bytesPerSecond: number;
}

const SMALLEST_BUCKET = 2 ** 16;
const LARGEST_BUCKET = 2 ** 26;
/** A bucket is so large that its transfer takes this many times the latency. */
const LATENCIES = 16;

/**
 * The size of a bucket: an eighth of `total` bytes, but large enough that latency hardly matters,
 * and between the smallest and the largest size.
 */
export function bucketBytes(link: Link, total: number): number {
  const worth = LATENCIES * link.latency * link.bytesPerSecond;
  const least = Math.max(worth, SMALLEST_BUCKET);
  return Math.round(Math.min(Math.max(least, total / 8), LARGEST_BUCKET));
}
