/** What a piece of the pass runs for micro-batches that run at once, and what is exchanged behind it. */
import type { Graph } from "../graph/index.ts";
import { flopsOf } from "../ops/index.ts";
import {
  type ComputeTask,
  isPiece,
  type PassPart,
  type PassTask,
  passParts,
  type StepGraph,
} from "../plan/index.ts";
import type { Exchanges } from "./exchanges.ts";
import type { At, Places } from "./places.ts";
import type { CollectiveStage, RunStage } from "./program.ts";
import type { Range } from "./shares.ts";

/** Some 20 ms on one thread. */
const SHORT_FLOPS = 1e9;

/** What a piece runs, and what is exchanged behind it. */
export type Computed = readonly [RunStage, ...(RunStage | CollectiveStage)[]];

/** Micro-batches [first, first + count) of a rank run at once, each in a lane. */
export interface PassRunsOptions extends Range, Pick<At, "from"> {
  readonly step: StepGraph;
  readonly exchanges?: Exchanges | undefined;
  readonly places: Places;
  readonly name: string;
  /** How pieces run behind which nothing is exchanged. */
  readonly mode: RunStage["mode"];
}

export function passRuns({ piece, exchanges }: PassPart, options: PassRunsOptions): Computed {
  const { step, places, first, count, from, name } = options;
  const lanes = Array.from({ length: count }, (_, lane) => lane);
  const at = (lane: number): At => ({ microBatch: first + lane, lane, from });
  const runs = lanes.map((lane) => places.run(piece, at(lane)));
  const exchanged = exchanges.flatMap(
    (task) => options.exchanges?.stages(task, lanes, (of, lane) => places.ref(of, at(lane))) ?? [],
  );
  const mode = exchanges.length > 0 ? modeBetween(step, piece) : options.mode;
  return [{ name, runs, mode }, ...exchanged];
}

/** Short pieces between exchanges are not handed to other threads. */
function modeBetween(step: StepGraph, { graph }: ComputeTask): RunStage["mode"] {
  return flopsOf(step.graphs.get(graph) as Graph) < SHORT_FLOPS ? "sweep" : "parallel";
}

export interface TurnRunsOptions extends Omit<PassRunsOptions, "mode"> {
  /** The pieces of a part of a stage, and the exchanges between them, in order. */
  readonly tasks: readonly PassTask[];
}

/** What one turn of a pipeline runs. It may begin with an exchange of what another stage has made. */
export function turnRuns(options: TurnRunsOptions): (RunStage | CollectiveStage)[] {
  const { step, places, first, count, from, name, tasks } = options;
  const lanes = Array.from({ length: count }, (_, lane) => lane);
  const at = (lane: number): At => ({ microBatch: first + lane, lane, from });
  const isCut = tasks.some(({ kind }) => kind === "exchange");
  return tasks.flatMap((task): (RunStage | CollectiveStage)[] => {
    if (task.kind === "exchange") {
      return options.exchanges?.stages(task, lanes, (of, lane) => places.ref(of, at(lane))) ?? [];
    }
    const runs = lanes.map((lane) => places.run(task, at(lane)));
    return [{ name, runs, mode: isCut ? modeBetween(step, task) : "parallel" }];
  });
}

/**
 * The pieces of a pass in groups: within a group nothing is gathered and no gradient is summed, only
 * exchanged by ranks that divide the model.
 */
export function partsTogether(step: StepGraph): PassPart[][] {
  const parts = passParts(step);
  const groups: PassPart[][] = [];
  let isOpen = false;
  for (const task of step.tasks) {
    const part = isPiece(task) ? parts.find(({ piece }) => piece === task) : undefined;
    if (part !== undefined && isOpen) groups.at(-1)?.push(part);
    else if (part !== undefined) groups.push([part]);
    isOpen = task.kind === "exchange";
  }
  return groups;
}
