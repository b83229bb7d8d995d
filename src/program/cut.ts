/**
 * The gradient of a micro-batch, cut where buckets of gradients are ready: segments between which nothing waits, and
 * the collectives that may start after each. What crosses a cut lies in one planned arena.
 */
import { assert } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import { createMesh, dataParallel, planBuckets } from "../parallel/index.ts";
import type { GradientGraph } from "./gradient.ts";
import { type MemoryPlan, planMemory } from "./memory-plan.ts";
import {
  type CollectiveTask,
  partitionGraph,
  type RankProgram,
  type SegmentTask,
  type Task,
} from "./partition.ts";
import type { Run, TensorRef } from "./program.ts";

export interface CutGradient {
  readonly program: RankProgram;
  /** What is summed together, as outputs of the whole gradient graph; the collectives are in the same order. */
  readonly buckets: readonly (readonly string[])[];
  readonly memory: MemoryPlan;
  /** The output of the whole graph for each value that a collective takes. */
  readonly summed: ReadonlyMap<string, string>;
}

/**
 * @param summed outputs of the gradient graph that are summed over ranks
 * @param bucketBytes a bucket is closed when it holds so much
 */
export function cutGradient(
  { graph }: GradientGraph,
  summed: readonly string[],
  bucketBytes: number,
): CutGradient {
  const options = { summed, bucketBytes };
  // Any size: the graph of a rank is the same for all.
  const mesh = createMesh({ data: 2 });
  const program = partitionGraph(dataParallel(options).rewrite(graph, mesh, 0));
  const buckets = planBuckets(graph, options);
  const collectives = program.tasks.filter(isCollectiveTask);
  assert(collectives.length === buckets.length, "a collective for each bucket");
  const outputs = new Map<string, string>();
  for (const [at, { node }] of collectives.entries()) {
    for (const [index, name] of node.inputs.entries()) {
      outputs.set(name, buckets[at]?.[index] as string);
    }
  }
  const results = collectives.flatMap((task) => task.outputs);
  const placed = new Set([...outputs.keys(), ...results, ...program.outputs]);
  return { program, buckets, memory: planMemory(program, placed), summed: outputs };
}

export function isCollectiveTask(task: Task): task is CollectiveTask {
  return task.kind === "collective";
}

export function isSegmentTask(task: Task): task is SegmentTask {
  return task.kind === "segment";
}

/** A segment's part of a run of the whole gradient; `arena` is the buffer for what crosses a cut. */
export function segmentRun(
  { program, memory, summed }: CutGradient,
  task: SegmentTask,
  whole: Run,
  graph: string,
  arena: string,
): Run {
  const place = (name: string): TensorRef => {
    const known = whole.inputs[name] ?? whole.outputs[summed.get(name) ?? name];
    if (known !== undefined) return known;
    const planned = memory.values.get(name);
    const type = program.types.get(name) ?? typeOf(task.graph, name);
    assert(planned !== undefined && !planned.shared, `"${name}" has a place between segments`);
    return { buffer: arena, byteOffset: planned.byteOffset, type };
  };
  const places = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, place(name)]));
  return { graph, inputs: places(task.inputs), outputs: places(task.outputs) };
}
