/**
 * Pipeline parallelism: the pass is cut into stages, and each rank of an axis has the parameters of
 * one stage and computes it for all micro-batches, while the others compute theirs. After Huang et
 * al., "GPipe", 2019, and Narayanan et al., "Megatron-LM", 2021. A parameter that two stages use
 * lies with one of them, and its gradient is the sum of what both make, as in the pass of one rank.
 */
import { LockstepError } from "../errors.ts";
import { axisOf, PIPELINE } from "../mesh/index.ts";
import {
  cutIntoStages,
  cutTask,
  DEFAULT_SCHEDULE,
  type Direction,
  isPiece,
  MEMORY_SPEED,
  parseTimetable,
  readTimetable,
  SCHEDULES,
  type StageCosts,
  type StepGraph,
  type StepTask,
  splitStages,
  valueOf,
} from "../plan/index.ts";
import { DEFAULT_FLOPS } from "./cost.ts";
import { stagesIn } from "./devices.ts";
import { secondsOfNode } from "./sharding/costs.ts";
import type { Strategy } from "./strategy.ts";
import { shardUpdates } from "./zero.ts";

export interface PipelineOptions {
  /** The axis of the mesh. Default: `PIPELINE`. */
  readonly axis?: string;
  /** The name of a timetable, or the timetable as text. Default:
   * `DEFAULT_SCHEDULE`. */
  readonly schedule?: string | undefined;
}

const LINK = { latency: 0, bytesPerSecond: MEMORY_SPEED };
const SPEED = { flopsPerSecond: DEFAULT_FLOPS, bytesPerSecond: MEMORY_SPEED, link: LINK };
const COSTS: StageCosts = {
  secondsOf: (graph, node) => secondsOfNode(graph, node, { inputs: [], outputs: [] }, 1, SPEED),
  bytesPerSecond: MEMORY_SPEED,
};

const WORDS: Readonly<Record<Direction, string>> = {
  F: "forward",
  B: "backward",
  W: "backward, later",
};

export function pipeline({
  axis = PIPELINE,
  schedule = DEFAULT_SCHEDULE,
}: PipelineOptions = {}): Strategy {
  if (!isNamed(schedule)) parseTimetable(schedule);
  return {
    name: `stages over "${axis}", ${isNamed(schedule) ? schedule : "a timetable"}`,
    rewrite(step, mesh) {
      const count = axisOf(mesh, axis).size;
      const [pass, ...others] = step.tasks.filter(isPiece);
      if (count === 1 || pass === undefined) return step;
      if (others.length > 0) {
        throw new LockstepError(
          "INVALID_OPTION",
          `A pass that is in pieces already cannot be cut into stages over "${axis}".`,
          { hint: "Put the pipeline before the strategies that cut the pass." },
        );
      }
      const { microBatches } = step;
      const split = splitStages(readTimetable(schedule, { ranks: count, microBatches }));
      const isSplit = (stage: number) => split.has(stage);
      const given = stagesIn(step.devices, count);
      const cut = cutIntoStages(step, pass, { count, isSplit, given }, COSTS);
      if (cut === undefined) throw tooFew(step, count);
      const found = cutTask(step, pass, (node) => cut.pieceOf.get(node) as number);
      const tasks = found.step.tasks.map((task): StepTask => {
        const part = cut.pieces[found.pieces.findIndex((piece) => piece === task)];
        if (part === undefined || task.kind !== "compute") return task;
        const { stage, direction } = part;
        return {
          ...task,
          name: `stage ${stage}, ${WORDS[direction]}`,
          stage: { stage, direction },
        };
      });
      const staged = { ...found.step, tasks, pipeline: { axis, schedule } };
      checkStages(staged, { count, split });
      return shardUpdates(staged, [axis], ["slot", "gradient", "parameter"]);
    },
  };
}

function isNamed(schedule: string): boolean {
  return (SCHEDULES as readonly string[]).includes(schedule);
}

/** @throws INVALID_OPTION for a stage that has no parameters, or not the parts of its timetable */
function checkStages(
  step: StepGraph,
  { count, split }: { readonly count: number; readonly split: ReadonlySet<number> },
): void {
  const pieces = step.tasks.filter(isPiece);
  for (let stage = 0; stage < count; stage++) {
    const own = pieces.filter((piece) => piece.stage?.stage === stage);
    const trains = own.some(({ inputs }) =>
      inputs.some((name) => valueOf(step, name).role === "parameter"),
    );
    const has = (direction: Direction) => own.some((piece) => piece.stage?.direction === direction);
    if (!trains || !has("F")) throw tooFew(step, count);
    if (!split.has(stage) || (has("B") && has("W"))) continue;
    throw new LockstepError(
      "INVALID_OPTION",
      `The timetable of the pipeline has ${stage}W, but stage ${stage} of "${step.name}" computes no gradient that another stage waits for.`,
      { hint: `Leave out ${stage}W: ${stage}B is then the whole backward part.` },
    );
  }
}

function tooFew({ name }: StepGraph, count: number): LockstepError {
  return new LockstepError(
    "INVALID_OPTION",
    `parallel: pipeline ${count} needs a model that can be cut into ${count} stages with parameters, and "${name}" cannot.`,
    { hint: "Use fewer stages." },
  );
}
