/** When the tasks of a rank would run, for plans: computation and communication at once, each with a speed that is told. */
import { type Graph, inferContext, typeOf } from "../graph/index.ts";
import { operatorTable } from "../ops/index.ts";
import type { RankProgram, Task } from "./partition.ts";

export interface Speeds {
  readonly flopsPerSecond: number;
  /** Of a collective: until it has begun, and then of its bytes. */
  readonly latency: number;
  readonly bytesPerSecond: number;
}

export interface Timed {
  readonly task: Task;
  readonly flops: number;
  /** Seconds from the start of the program. */
  readonly start: number;
  readonly end: number;
}

export interface Timeline {
  readonly tasks: readonly Timed[];
  readonly seconds: number;
  readonly computing: number;
  readonly communicating: number;
  /** Communication beside which nothing is computed. */
  readonly exposed: number;
}

/** As `executeTasks` would: one segment at a time, one collective of an axis at a time, in order among the ready. */
export function planTimeline(program: RankProgram, speeds: Speeds): Timeline {
  const free = new Map<string, number>();
  const timed: Timed[] = [];
  const open = new Set(program.tasks.keys());
  while (open.size > 0) {
    // Of all that could be next on its lane, what can start first.
    let best: { index: number; start: number } | undefined;
    const seen = new Set<string>();
    for (const index of open) {
      const task = program.tasks[index] as Task;
      const lane = laneOf(task);
      if (task.kind === "collective" && seen.has(lane)) continue;
      seen.add(lane);
      if (task.after.some((needed) => open.has(needed))) continue;
      const ready = Math.max(0, ...task.after.map((needed) => (timed[needed] as Timed).end));
      const start = Math.max(ready, free.get(lane) ?? 0);
      if (best === undefined || start < best.start) best = { index, start };
    }
    if (best === undefined) break;
    const task = program.tasks[best.index] as Task;
    const flops = task.kind === "segment" ? flopsOf(task.graph) : 0;
    const seconds =
      task.kind === "segment"
        ? flops / speeds.flopsPerSecond
        : speeds.latency + task.bytes / speeds.bytesPerSecond;
    const end = best.start + seconds;
    timed[best.index] = { task, flops, start: best.start, end };
    free.set(laneOf(task), end);
    open.delete(best.index);
  }
  return summarize(timed);
}

function laneOf(task: Task): string {
  return task.kind === "segment" ? "compute" : `axis ${task.axis}`;
}

function summarize(tasks: readonly Timed[]): Timeline {
  const total = (kind: Task["kind"]) =>
    tasks.reduce((sum, { task, start, end }) => sum + (task.kind === kind ? end - start : 0), 0);
  const seconds = Math.max(0, ...tasks.map(({ end }) => end));
  const computing = total("segment");
  const communicating = total("collective");
  return { tasks, seconds, computing, communicating, exposed: seconds - computing };
}

/** Floating-point operations of one run of a graph. */
export function flopsOf(graph: Graph): number {
  let flops = 0;
  for (const node of graph.nodes) {
    const definition = operatorTable.find(node.op);
    if (definition === undefined) continue;
    const type = (name: string) => (name === "" ? undefined : typeOf(graph, name));
    const context = inferContext({
      definition,
      where: node.name,
      inputs: node.inputs.map(type),
      constants: node.inputs.map((name) => graph.constants.get(name)),
      attributes: node.attributes,
      outputCount: node.outputs.length,
    });
    flops += definition.flops({
      ...context,
      outputs: node.outputs.flatMap((name) => type(name) ?? []),
    });
  }
  return flops;
}
