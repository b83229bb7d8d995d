/** How a step is shared out to the ranks of a run: the mesh, and the strategies that rewrite the step for it. */
import { createMesh, type Mesh, regularTopology, type Topology } from "../mesh/index.ts";
import type { ReduceTask } from "../plan/index.ts";
import { type BucketOptions, buckets } from "./buckets.ts";
import { data } from "./data.ts";
import type { Strategy } from "./strategy.ts";
import { sharedUpdates, zero1 } from "./zero.ts";

export interface ChooseOptions {
  readonly topology: Topology;
  /** Of sums over ranks. Default: `tree`. */
  readonly combination?: ReduceTask["combination"] | undefined;
  /** Between nodes, gradients travel in buckets; all at once unless told. */
  readonly buckets?: BucketOptions | undefined;
}

export interface Parallel {
  readonly mesh: Mesh;
  readonly topology: Topology;
  readonly strategies: readonly Strategy[];
  /** Why, in a sentence for people. */
  readonly reason: string;
}

/**
 * Ranks of one node sum in place, which makes ZeRO's first stage free: each updates its part, and parts go to all through shared memory.
 * Between nodes the update is repeated, so that only gradients travel.
 */
export function chooseParallel(options: ChooseOptions): Parallel {
  const topology = regularTopology(options.topology);
  const { nodes } = topology;
  const each = nodes[0]?.length ?? 1;
  const { combination = "tree" } = options;
  if (nodes.length * each === 1) {
    const reason = "One worker computes the whole step.";
    return { mesh: createMesh({}), topology, strategies: [], reason };
  }
  const axes = [...(nodes.length > 1 ? ["data"] : []), ...(each > 1 ? ["shard"] : [])];
  const sizes: Readonly<Record<string, number>> = { data: nodes.length, shard: each };
  const mesh = createMesh(Object.fromEntries(axes.map((axis) => [axis, sizes[axis] as number])));
  const strategies = [
    ...axes.map((axis) => data({ axis, combination })),
    ...(each > 1 ? [zero1(["shard"])] : []),
    sharedUpdates(axes),
    // Within a node nothing is won by buckets: there, sums take milliseconds of the cores that compute.
    ...(nodes.length > 1 && options.buckets !== undefined ? [buckets(options.buckets)] : []),
  ];
  return { mesh, topology, strategies, reason: reasonOf(nodes.length, each) };
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
