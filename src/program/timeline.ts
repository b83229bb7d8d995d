/**
 * Estimates when the tasks of a stage would run, for plans: computation beside communication, each
 * at a given speed.
 */
import { flopsOf } from "../ops/index.ts";
import { bytesPerElement } from "../tensor/index.ts";
import {
  COMPUTE,
  type CollectiveStage,
  type Program,
  type Stage,
  type Task,
  type TaskStage,
} from "./program.ts";

export interface Speeds {
  readonly flopsPerSecond: number;
  /** Seconds until a collective has begun. */
  readonly latency: number;
  readonly bytesPerSecond: number;
}

export interface Timed {
  readonly task: Task;
  readonly flops: number;
  /** Bytes that its collectives bring to this rank. */
  readonly bytes: number;
  /** Seconds from the start of the stage. */
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

/** As `executeTasks` would run them: one task of a lane at a time, in order. */
export function planTimeline(program: Program, { tasks }: TaskStage, speeds: Speeds): Timeline {
  const free = new Map<string, number>();
  const timed: Timed[] = [];
  // Every task comes after those that it waits for, and after those of its lane.
  for (const task of tasks) {
    const ready = Math.max(0, ...task.after.map((needed) => timed[needed]?.end ?? 0));
    const start = Math.max(ready, free.get(task.lane) ?? 0);
    const flops = task.lane === COMPUTE ? flopsOfStages(program, task.work) : 0;
    const collectives = task.work.filter((stage) => stage.mode === "collective");
    const bytes = collectives.reduce((sum, stage) => sum + collectiveBytes(stage), 0);
    const seconds =
      task.lane === COMPUTE
        ? flops / speeds.flopsPerSecond
        : collectives.length * speeds.latency + bytes / speeds.bytesPerSecond;
    const end = start + seconds;
    timed.push({ task, flops, bytes, start, end });
    free.set(task.lane, end);
  }
  return summarize(timed);
}

function summarize(tasks: readonly Timed[]): Timeline {
  const total = (isCounted: (task: Task) => boolean) =>
    tasks.reduce((sum, { task, start, end }) => sum + (isCounted(task) ? end - start : 0), 0);
  const seconds = Math.max(0, ...tasks.map(({ end }) => end));
  const computing = total(({ lane }) => lane === COMPUTE);
  const communicating = total(({ lane }) => lane !== COMPUTE);
  return { tasks, seconds, computing, communicating, exposed: seconds - computing };
}

/** The bytes that a collective works on; 0 for a barrier. */
export function collectiveBytes({ call }: CollectiveStage): number {
  if (call.kind === "barrier") return 0;
  const counts = call.kind === "allGather" ? call.counts : call.receiveCounts;
  return counts.reduce((sum, count) => sum + count, 0) * bytesPerElement(call.dtype);
}

export function flopsOfStages(program: Program, stages: readonly Stage[]): number {
  return stages.reduce((sum, stage) => {
    if (stage.mode === "collective") return sum;
    if (stage.mode === "tasks") {
      return sum + stage.tasks.reduce((all, { work }) => all + flopsOfStages(program, work), 0);
    }
    return stage.runs.reduce((all, { graph }) => {
      const found = program.graphs.get(graph);
      return all + (found === undefined ? 0 : flopsOf(found.graph));
    }, sum);
  }, 0);
}
