/** Lines about a pipeline: its stages, its timetable, and a picture of who computes when. */
import type { Graph } from "../graph/index.ts";
import { flopsOf, type Work, workOf } from "../ops/index.ts";
import { secondsOfWork } from "../parallel/index.ts";
import {
  bubbleOf,
  type ComputeTask,
  endsOf,
  formatTimetable,
  isPiece,
  type PlannedTimetable,
  planTimetable,
  type StepGraph,
  stageNeeds,
  type Turn,
  timetableOfStages,
  valueOf,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import { columns, operations, size, time } from "./columns.ts";

/** The width of the picture, in letters. */
const WIDTH = 96;

export interface PipelineFacts {
  readonly ranks: number;
  /** Of one pipeline. */
  readonly microBatches: number;
  readonly flopsPerSecond: number;
  /** Undefined: `flopsPerSecond` is the speed of all operators together. */
  readonly memorySpeed?: number | undefined;
}

/** @returns nothing for a step without stages */
export function pipelineLines(step: StepGraph, facts: PipelineFacts): string[] {
  const { pipeline } = step;
  if (pipeline === undefined) return [];
  const pieces = step.tasks.filter(isPiece);
  const needs = stageNeeds(pieces);
  const timetable = timetableOfStages(
    pipeline.schedule,
    facts,
    pieces.map(({ stage }) => stage),
  );
  const planned = planTimetable(timetable, needs);
  const parts = partsOf(step, pieces);
  const seconds = new Map([...parts].map(([part, { work }]) => [part, secondsOfWork(work, facts)]));
  const secondsOf = ({ stage, direction }: Turn) => seconds.get(`${stage}${direction}`) ?? 0;
  const rows = [...parts].map(([part, { flops, sent }]) => [
    `  ${part}`,
    operations(flops),
    sent === 0 ? "" : `${size(sent)} to other stages`,
  ]);
  const idle = 100 * bubbleOf(planned, needs, secondsOf);
  const ends = endsOf(planned, needs, secondsOf);
  const whole = Math.max(...ends.flat());
  const hasSeveral = timetable.some((own) => stagesIn(own).length > 1);
  return [
    "parts of stages, for a micro-batch (F forward, B backward, W the part of it for which no stage waits)",
    ...columns(rows),
    "the timetable, which can be edited and given as --timetable FILE",
    ...formatTimetable(timetable).split("\n"),
    `who computes when, over ${time(whole)}; for ${idle.toFixed(1)}% of their time ranks wait${hasSeveral ? " (small letters: every second stage of a rank)" : ""}`,
    ...picture(planned, ends, secondsOf),
    "",
  ];
}

/** What a part of a stage computes, and the bytes that other stages read of it, by its name. */
function partsOf(step: StepGraph, pieces: readonly ComputeTask[]) {
  const parts = new Map<string, { flops: number; work: Work[]; sent: number }>();
  for (const { stage, graph, outputs } of pieces) {
    const name = `${stage?.stage}${stage?.direction}`;
    const part = parts.get(name) ?? { flops: 0, work: [], sent: 0 };
    const others = pieces.filter((piece) => piece.stage?.stage !== stage?.stage);
    const read = outputs.filter((output) => others.some(({ inputs }) => inputs.includes(output)));
    const own = step.graphs.get(graph) as Graph;
    part.flops += flopsOf(own);
    part.work.push(...workOf(own));
    part.sent += read.reduce((sum, own) => sum + byteLength(valueOf(step, own).type), 0);
    parts.set(name, part);
  }
  return parts;
}

function stagesIn(turns: readonly Turn[]): number[] {
  return [...new Set(turns.map(({ stage }) => stage))].sort((a, b) => a - b);
}

/**
 * A line for each rank: the letter of what it computes, small for every second of its stages, or a
 * dot while it waits.
 */
function picture(
  { turns }: PlannedTimetable,
  ends: readonly (readonly number[])[],
  secondsOf: (turn: Turn) => number,
): string[] {
  const whole = Math.max(...ends.flat());
  return turns.map((own, rank) => {
    const stages = stagesIn(own);
    const letterOf = ({ stage, direction }: Turn) =>
      stages.indexOf(stage) % 2 === 0 ? direction : direction.toLowerCase();
    const letters = Array.from({ length: WIDTH }, (_, at) => {
      const now = ((at + 0.5) * whole) / WIDTH;
      const index = ends[rank]?.findIndex((end) => end > now) ?? -1;
      const turn = own[index];
      if (turn === undefined) return ".";
      const start = (ends[rank]?.[index] as number) - secondsOf(turn);
      return start <= now ? letterOf(turn) : ".";
    });
    return `${rank}  ${letters.join("")}`;
  });
}
