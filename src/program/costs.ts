/**
 * What stages cost, for plans: operations, bytes, and when tasks would run, with computation beside
 * communication, each at a given speed.
 */
import { flopsOf } from "../ops/index.ts";
import { MEMORY_SPEED } from "../plan/index.ts";
import { byteLength, bytesPerElement } from "../tensor/index.ts";
import {
  COMPUTE,
  type CollectiveStage,
  type MessageStage,
  type Program,
  type Run,
  type SimpleStage,
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
  /** Bytes that its runs read in the memory of other ranks of the node. */
  readonly read: number;
  /** Seconds from the start of the stage. */
  readonly start: number;
  readonly end: number;
}

export interface Timeline {
  readonly tasks: readonly Timed[];
  readonly seconds: number;
  readonly computing: number;
  /** With what is read in the memory of the node's other ranks, which uses the same cores. */
  readonly communicating: number;
  /** Communication beside which nothing is computed. */
  readonly exposed: number;
}

/** Times tasks as `executeTasks` would run them: one task of a lane at a time, in order. */
export function planTimeline(program: Program, { tasks }: TaskStage, speeds: Speeds): Timeline {
  const free = new Map<string, number>();
  const timed: Timed[] = [];
  // Every task comes after those that it waits for, and after those of its lane.
  for (const task of tasks) {
    const { lane, work } = task;
    const ready = Math.max(0, ...task.after.map((needed) => timed[needed]?.end ?? 0));
    const start = Math.max(ready, free.get(lane) ?? 0);
    const flops = lane === COMPUTE ? flopsOfStages(program, work) : 0;
    const collectives = work.filter((stage) => stage.mode === "collective");
    const bytes = collectives.reduce((sum, stage) => sum + collectiveBytes(stage), 0);
    const waiting = collectives.length * speeds.latency + bytes / speeds.bytesPerSecond;
    const read = work.reduce((sum, stage) => sum + readBytes(stage), 0);
    const own = lane === COMPUTE ? flops / speeds.flopsPerSecond : waiting;
    const end = start + own + read / MEMORY_SPEED;
    timed.push({ task, flops, bytes, read, start, end });
    free.set(lane, end);
  }
  const busy = timed.reduce((sum, { start, end }) => sum + (end - start), 0);
  const seconds = Math.max(0, ...timed.map(({ end }) => end));
  const flops = timed.reduce((sum, each) => sum + each.flops, 0);
  const computing = flops / speeds.flopsPerSecond;
  const communicating = busy - computing;
  return { tasks: timed, seconds, computing, communicating, exposed: seconds - computing };
}

/** The bytes that a collective works on; 0 for a barrier. */
export function collectiveBytes({ call }: CollectiveStage): number {
  return bytesFrom(call, () => true);
}

/** The bytes that come from those ranks (by their places) that are counted. */
function bytesFrom(call: CollectiveStage["call"], isCounted: (place: number) => boolean): number {
  if (call.kind === "barrier") return 0;
  const counts = call.kind === "allGather" ? call.counts : call.receiveCounts;
  const counted = counts.filter((_, place) => isCounted(place));
  return counted.reduce((sum, count) => sum + count, 0) * bytesPerElement(call.dtype);
}

/**
 * The bytes that a rank receives from others: those that it reads in their memory, those that are
 * sent to it, and those that neighbours write to its memory, which are as many as it writes to
 * theirs.
 * @param placeOf this rank's place in a group
 */
export function receivedBytes(
  stages: readonly Stage[],
  placeOf: (group: string) => number,
): number {
  return stages.flatMap(stagesIn).reduce((sum, stage) => {
    if (stage.mode === "collective") {
      return sum + bytesFrom(stage.call, (place) => place !== placeOf(stage.group));
    }
    return sum + (stage.mode === "messages" ? messageBytes(stage, false) : readBytes(stage));
  }, 0);
}

/** The bytes of the messages that a stage begins. @param isSent of those that go, or that come */
export function messageBytes({ begins }: MessageStage, isSent: boolean): number {
  const own = begins.filter((message) => message.isSent === isSent);
  return own.reduce((sum, { part }) => sum + part.byteLength, 0);
}

/** The bytes that runs read and write in the memory of other ranks. */
function readBytes(stage: SimpleStage): number {
  return runsOf(stage)
    .flatMap(({ inputs, outputs }) => [...Object.values(inputs), ...Object.values(outputs)])
    .filter(({ rank }) => rank !== undefined)
    .reduce((sum, { type }) => sum + byteLength(type), 0);
}

export function flopsOfStages(program: Program, stages: readonly Stage[]): number {
  return stages.flatMap(stagesIn).reduce((sum, stage) => {
    return runsOf(stage).reduce((all, { graph }) => {
      const found = program.graphs.get(graph);
      return all + (found === undefined ? 0 : flopsOf(found.graph));
    }, sum);
  }, 0);
}

function runsOf(stage: SimpleStage): readonly Run[] {
  return "runs" in stage ? stage.runs : [];
}

function stagesIn(stage: Stage): readonly SimpleStage[] {
  return stage.mode === "tasks" ? stage.tasks.flatMap(({ work }) => work) : [stage];
}
