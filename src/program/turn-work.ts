/**
 * What one turn of a pipeline computes: the pieces of a part of a stage, and between them what is
 * exchanged with ranks that compute the same part.
 */
import type { Graph } from "../graph/index.ts";
import { flopsOf } from "../ops/index.ts";
import type { ComputeTask, PassTask, StepGraph } from "../plan/index.ts";
import type { Exchanges } from "./exchanges.ts";
import type { At, Places } from "./places.ts";
import type { CollectiveStage, RunStage } from "./program.ts";

/** Some 20 ms on one thread. */
const SHORT_FLOPS = 1e9;

/**
 * How pieces run, several micro-batches at once.
 * @param isCut whether something is exchanged beside them: short ones are then not handed to other
 *   threads
 */
export function modeOfPiece(
  step: StepGraph,
  { graph }: ComputeTask,
  isCut: boolean,
): RunStage["mode"] {
  if (!isCut) return "parallel";
  const own = step.graphs.get(graph) as Graph;
  return flopsOf(own) < SHORT_FLOPS ? "sweep" : "parallel";
}

export interface TurnWork {
  readonly name: string;
  readonly step: StepGraph;
  /** The pieces of the part, and the exchanges between them, in order. */
  readonly tasks: readonly PassTask[];
  readonly lanes: readonly number[];
  readonly at: (lane: number) => At;
  readonly places: Places;
  readonly exchanges: Exchanges | undefined;
}

export function computedInTurn(work: TurnWork): (RunStage | CollectiveStage)[] {
  const { name, step, tasks, lanes, at, places, exchanges } = work;
  const isCut = tasks.some(({ kind }) => kind === "exchange");
  return tasks.flatMap((task): (RunStage | CollectiveStage)[] => {
    if (task.kind === "exchange") {
      return exchanges?.stages(task, lanes, (of, lane) => places.ref(of, at(lane))) ?? [];
    }
    const runs = lanes.map((lane) => places.run(task, at(lane)));
    return [{ name, runs, mode: modeOfPiece(step, task, isCut) }];
  });
}
