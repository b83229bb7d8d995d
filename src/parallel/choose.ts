/** How a step is shared out to the ranks of a run: the mesh, and the strategies that rewrite the step for it. */
import { LockstepError } from "../errors.ts";
import { createMesh, type Mesh, regularTopology, type Topology } from "../mesh/index.ts";
import type { ReduceTask } from "../plan/index.ts";
import { type BucketOptions, buckets } from "./buckets.ts";
import { data } from "./data.ts";
import { type Recompute, recompute } from "./recompute.ts";
import type { Strategy } from "./strategy.ts";
import { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";

/** What a user may say of it. */
export interface ParallelOptions {
  /**
   * Sizes of the axes; their product is the number of workers. `data`: workers that hold the whole model. `shard`: workers that share out
   * parameters, gradients and optimizer state. Both: sharded within, replicated across (hybrid).
   */
  readonly parallel?:
    | { readonly data?: number | undefined; readonly shard?: number | undefined }
    | undefined;
  /** What is sharded: optimizer state (1), gradients too (2), parameters too (3). Default: 3 where `shard` is stated. */
  readonly zero?: 1 | 2 | 3 | undefined;
  /**
   * Activations that are computed again in the backward pass instead of being kept: of all blocks of the model, or of as few as it takes
   * for the activations of a micro-batch to fit the memory. Each micro-batch at work (one a thread) takes as much. It changes no bits.
   */
  readonly recompute?: Recompute | undefined;
}

export interface ChooseOptions extends ParallelOptions {
  readonly topology: Topology;
  /** Of sums over ranks. Default: `tree`. */
  readonly combination?: ReduceTask["combination"] | undefined;
  /** Gradients that travel between nodes, or to those that look after them, do so in buckets. */
  readonly buckets?: BucketOptions | undefined;
}

export interface Parallel {
  readonly mesh: Mesh;
  readonly topology: Topology;
  readonly strategies: readonly Strategy[];
  /** Why, in a sentence for people. */
  readonly reason: string;
}

/** Bytes of a bucket where none are stated. */
const BUCKET_BYTES = 2 ** 22;

/**
 * Unless stated: ranks of one node sum in place, which makes ZeRO's first stage free (each updates its part, and parts go to all through
 * shared memory), and between nodes the update is repeated, so that only gradients travel. @throws INVALID_OPTION
 */
export function chooseParallel(options: ChooseOptions): Parallel {
  const topology = regularTopology(options.topology);
  const { nodes } = topology;
  const each = nodes[0]?.length ?? 1;
  const size = nodes.length * each;
  const { parallel, combination = "tree" } = options;
  const sizes =
    parallel === undefined ? { data: nodes.length, shard: each } : stated(parallel, size);
  const axes = (["data", "shard"] as const).filter((axis) => sizes[axis] > 1);
  const mesh = createMesh(Object.fromEntries(axes.map((axis) => [axis, sizes[axis]])));
  const again = options.recompute === undefined ? [] : [recompute(options.recompute)];
  if (axes.length === 0) {
    const reason = "One worker computes the whole step.";
    return { mesh, topology, strategies: again, reason };
  }
  const sharded = sizes.shard > 1 ? "shard" : "data";
  const { zero = defaultZero(parallel, sizes.shard) } = options;
  const { bucketBytes = BUCKET_BYTES } = options.buckets ?? {};
  const isSummedWhole = zero < 2;
  const strategies = [
    ...again,
    ...axes.map((axis) => data({ axis, combination })),
    ...(zero === 1 ? [zero1([sharded])] : []),
    ...(zero === 2 ? [zero2([sharded], bucketBytes)] : []),
    ...(zero === 3 ? [zero3([sharded])] : []),
    ...(isSummedWhole ? [sharedUpdates(axes)] : []),
    // Within a node nothing is won by buckets: there, sums take milliseconds of the cores that compute.
    ...(isSummedWhole && nodes.length > 1 && options.buckets ? [buckets(options.buckets)] : []),
  ];
  const reason =
    parallel === undefined && options.zero === undefined
      ? reasonOf(nodes.length, each)
      : `As stated: ${axes.map((axis) => `${axis} ${sizes[axis]}`).join(", ")}${zero > 0 ? `, zero ${zero}` : ""}.`;
  return { mesh, topology, strategies, reason };
}

function stated(
  { data: replicas = 1, shard = 1 }: NonNullable<ParallelOptions["parallel"]>,
  size: number,
): { readonly data: number; readonly shard: number } {
  if (replicas * shard === size) return { data: replicas, shard };
  throw new LockstepError(
    "INVALID_OPTION",
    `parallel: data ${replicas} times shard ${shard} makes ${replicas * shard} workers, and the run has ${size}.`,
    {
      hint: `Start ${replicas * shard} workers (--workers ${replicas * shard}), or state other sizes.`,
    },
  );
}

function defaultZero(parallel: ParallelOptions["parallel"], shard: number): 0 | 1 | 3 {
  if (parallel !== undefined) return shard > 1 ? 3 : 0;
  return shard > 1 ? 1 : 0;
}

function reasonOf(nodes: number, each: number): string {
  if (nodes === 1) {
    return `${each} workers of one node share memory: each sums and updates its part of the weights in place.`;
  }
  if (each === 1) {
    return `${nodes} nodes of one worker: each has all weights, and gradients travel in buckets beside computation.`;
  }
  return (
    `${nodes} nodes of ${each} workers: within a node each sums and updates its part in place, ` +
    "and between nodes gradients travel in buckets beside computation."
  );
}
