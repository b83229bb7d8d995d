/**
 * Chooses how a step is divided among the ranks of a run: the mesh, and the strategies that rewrite
 * the step for it.
 */
import { LockstepError } from "../errors.ts";
import { createMesh, type Mesh, regularTopology, type Topology } from "../mesh/index.ts";
import type { ReduceTask } from "../plan/index.ts";
import { type BucketOptions, buckets } from "./buckets.ts";
import { data } from "./data.ts";
import { type Recompute, recompute } from "./recompute.ts";
import type { Strategy } from "./strategy.ts";
import { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";

/** The options of parallelism that a user may set. */
export interface ParallelOptions {
  /**
   * The sizes of the axes; their product is the number of workers. `data` replicates the whole
   * model, `shard` shards parameters, gradients and optimizer state. With both, the model is
   * sharded within a group of workers and replicated across groups (hybrid).
   */
  readonly parallel?:
    | { readonly data?: number | undefined; readonly shard?: number | undefined }
    | undefined;
  /**
   * What is sharded: 1: the optimizer state; 2: the gradients, too; 3: the parameters, too.
   * Default: 3 if `shard` is given.
   */
  readonly zero?: 1 | 2 | 3 | undefined;
  /**
   * Which activations are computed again in the backward pass instead of being kept: those of all
   * blocks of the model, or of as few as let the activations of a micro-batch fit the given memory.
   * Each micro-batch that runs (one per thread) takes that much. It changes no bits.
   */
  readonly recompute?: Recompute | undefined;
}

export interface ChooseOptions extends ParallelOptions {
  readonly topology: Topology;
  /** How sums over ranks are combined. Default: `tree`. */
  readonly combination?: ReduceTask["combination"] | undefined;
  /**
   * Bucketing of gradients that are exchanged between nodes or reduced to the ranks that own their
   * shards.
   */
  readonly buckets?: BucketOptions | undefined;
}

export interface Parallel {
  readonly mesh: Mesh;
  readonly topology: Topology;
  readonly strategies: readonly Strategy[];
  /** The reason for the choice, in a sentence for people. */
  readonly reason: string;
}

/** The size of a bucket in bytes if none is given. */
const BUCKET_BYTES = 2 ** 22;

/**
 * Without options, the ranks of one node sum in place, which makes ZeRO-1 free (each rank updates
 * its shard, and the shards reach all ranks through shared memory); between nodes the update is
 * repeated, so that only gradients are sent.
 * @throws INVALID_OPTION
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
    // Within a node, buckets gain nothing, because sums there take milliseconds of the same cores
    // that compute.
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
    `parallel: data ${replicas} times shard ${shard} makes ${replicas * shard} workers, but the run has ${size}.`,
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
