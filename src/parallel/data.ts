/**
 * Data parallelism: every rank has the whole model and its own micro-batches; gradients are summed over ranks in buckets,
 * in the order in which they become ready, so that one bucket travels while the next is computed.
 */
import { assert } from "../errors.ts";
import { type Graph, type Node, typeOf, type Value } from "../graph/index.ts";
import { extendGraph } from "../ops/index.ts";
import { byteLength } from "../tensor/index.ts";
import { axisOf } from "./mesh.ts";
import type { Strategy } from "./strategy.ts";

export interface DataParallelOptions {
  /** Outputs of the graph that are summed over ranks: gradients, and what travels with them. */
  readonly summed: readonly string[];
  /** The axis of the mesh. Default: `data`. */
  readonly axis?: string;
  /** A bucket is closed when it holds this many bytes; `bucketBytes` chooses. */
  readonly bucketBytes: number;
}

export function dataParallel(options: DataParallelOptions): Strategy {
  const { axis = "data" } = options;
  return {
    name: "data",
    rewrite: (graph, mesh) =>
      axisOf(mesh, axis).size === 1 ? graph : withSums(graph, axis, options),
  };
}

function withSums(graph: Graph, axis: string, options: DataParallelOptions): Graph {
  const builder = extendGraph(graph);
  const results = new Map<string, Value>();
  const read = new Set(graph.nodes.flatMap(({ inputs }) => inputs));
  // Sums may be made in place: what others read too is copied first.
  const own = (name: string) => {
    const value = builder.value(name);
    return read.has(name) ? builder.one("Identity", [value]) : value;
  };
  for (const [index, bucket] of planBuckets(graph, options).entries()) {
    const sums = builder.within("data", () =>
      builder.emit("lockstep::AllReduce", bucket.map(own), { axis }, { outputs: bucket.length }),
    );
    assert(sums.length === bucket.length, `bucket ${index} has an output for each tensor`);
    for (const [at, name] of bucket.entries()) results.set(name, sums[at] as Value);
  }
  return builder.build(graph.outputs.map((name) => results.get(name) ?? builder.value(name)));
}

/** Names in the order in which the graph makes them, in groups of at least `bucketBytes` and of one element type. */
export function planBuckets(
  graph: Graph,
  { summed, bucketBytes }: Pick<DataParallelOptions, "summed" | "bucketBytes">,
): string[][] {
  const buckets: string[][] = [];
  const open = new Map<string, { names: string[]; bytes: number }>();
  for (const name of inOrderMade(graph, summed)) {
    const type = typeOf(graph, name);
    const bucket = open.get(type.dtype) ?? { names: [], bytes: 0 };
    open.set(type.dtype, bucket);
    bucket.names.push(name);
    bucket.bytes += byteLength(type);
    if (bucket.bytes < bucketBytes) continue;
    buckets.push(bucket.names);
    open.delete(type.dtype);
  }
  return [...buckets, ...[...open.values()].map(({ names }) => names)];
}

function inOrderMade(graph: Graph, names: readonly string[]): string[] {
  const madeAt = new Map<string, number>();
  for (const [index, node] of graph.nodes.entries()) {
    for (const output of (node satisfies Node).outputs) madeAt.set(output, index);
  }
  return names.toSorted((a, b) => (madeAt.get(a) ?? -1) - (madeAt.get(b) ?? -1));
}

export interface Link {
  /** Seconds until the first byte of a collective arrives. */
  readonly latency: number;
  /** Of the result of a collective, on each rank. */
  readonly bytesPerSecond: number;
}

const SMALLEST_BUCKET = 2 ** 16;
const LARGEST_BUCKET = 2 ** 26;
/** A bucket takes this many times longer to move than to start. */
const LATENCIES = 16;

/** Large enough that latency is lost in it, and small enough that `total` bytes make four buckets where they can. */
export function bucketBytes(link: Link, total: number): number {
  const worth = LATENCIES * link.latency * link.bytesPerSecond;
  const least = Math.max(worth, SMALLEST_BUCKET);
  return Math.round(Math.min(Math.max(least, total / 8), LARGEST_BUCKET));
}
