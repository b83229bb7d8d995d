/**
 * Pipeline parallelism: the pass is cut into stages, and each rank of an axis has the parameters of
 * the stages that the timetable gives it, and computes them for all micro-batches, while the others
 * compute theirs. After Huang et al., "GPipe", 2019, and Narayanan et al., "Megatron-LM", 2021. A
 * parameter that two stages use lies with one of them, and its gradient is the sum of what both make,
 * as in the pass of one rank.
 */
import { LockstepError } from "../errors.ts";
import { axisOf, PIPELINE } from "../mesh/index.ts";
import {
  type ComputeTask,
  cutIntoStages,
  cutTask,
  DEFAULT_SCHEDULE,
  type Direction,
  isPiece,
  isSchedule,
  MEMORY_SPEED,
  parseTimetable,
  ranksOfStages,
  readTimetable,
  type StageCosts,
  type StageOptions,
  type StagePart,
  type StepGraph,
  type StepTask,
  splitStages,
  stagesOfBlocks,
  valueOf,
} from "../plan/index.ts";
import { DEFAULT_FLOPS } from "./cost.ts";
import { stagesIn } from "./devices.ts";
import { checkTotals } from "./first-totals.ts";
import { allBlocksAgain } from "./recompute.ts";
import { secondsOfNode } from "./sharding/costs.ts";
import type { Strategy } from "./strategy.ts";
import { shardUpdates } from "./zero.ts";

export interface PipelineOptions {
  /** The axis of the mesh. Default: `PIPELINE`. */
  readonly axis?: string;
  /**
   * The name of a timetable, or the timetable as text. Default: `DEFAULT_SCHEDULE`, and `1f1b` with
   * `recompute`.
   */
  readonly schedule?: string | undefined;
  /** The axes along which ranks of the same stage share out its state. Default: none. */
  readonly sharedOver?: readonly string[];
  /** Whether activations inside a block are computed again in the backward part. Default: false. */
  readonly recompute?: boolean;
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
  schedule,
  sharedOver = [],
  recompute: again = false,
}: PipelineOptions = {}): Strategy {
  // What W reads would be computed again long before it is read.
  const used = schedule ?? (again ? "1f1b" : DEFAULT_SCHEDULE);
  if (!isSchedule(used)) parseTimetable(used);
  return {
    name: nameOf({ axis, schedule: used, sharedOver, recompute: again }),
    rewrite(step, mesh) {
      const ranks = axisOf(mesh, axis).size;
      const [pass, ...others] = step.tasks.filter(isPiece);
      if (ranks === 1 || pass === undefined) return step;
      if (others.length > 0) {
        throw new LockstepError(
          "INVALID_OPTION",
          `A pass that is in pieces already cannot be cut into stages over "${axis}".`,
          { hint: "Put the pipeline before the strategies that cut the pass." },
        );
      }
      checkTotals(step, "parallel: pipeline");
      const timetable = readTimetable(used, { ranks, microBatches: step.microBatches });
      const count = ranksOfStages(timetable, ranks).length;
      const split = splitStages(timetable);
      if (again && split.size > 0) throw keptTooLong(used);
      const given = stagesIn(step.devices, count);
      if (again && given !== undefined) throw notInBlocks(step);
      const staged = again
        ? inBlocks(step, pass, count)
        : inParts(step, pass, { count, split, given });
      checkStages(staged, { count, split: isSchedule(used) ? new Set() : split });
      const parts = { ...staged, pipeline: { axis, schedule: used } };
      const shared = sharedOver.filter((own) => axisOf(mesh, own).size > 1);
      return shardUpdates(parts, [...shared, axis], ["slot", "gradient", "parameter"]);
    },
  };
}

function nameOf({ axis, schedule, sharedOver, recompute: again }: Required<PipelineOptions>) {
  const how = schedule !== undefined && isSchedule(schedule) ? schedule : "a timetable";
  const shared = sharedOver.map((own) => `, state shared out over "${own}"`).join("");
  return `stages over "${axis}", ${how}${shared}${again ? ", recompute blocks" : ""}`;
}

/** Cuts the pass into the parts of stages. */
function inParts(
  step: StepGraph,
  pass: ComputeTask,
  {
    count,
    split,
    given,
  }: Pick<StageOptions, "count" | "given"> & { readonly split: ReadonlySet<number> },
): StepGraph {
  const isSplit = (stage: number) => split.has(stage);
  const cut = cutIntoStages(step, pass, { count, isSplit, given }, COSTS);
  if (cut === undefined) throw tooFew(step, count);
  const found = cutTask(step, pass, (node) => cut.pieceOf.get(node) as number);
  return withStages(found.step, cut.pieces);
}

/** Cuts the pass into blocks that are computed again, several of which are a stage. */
function inBlocks(step: StepGraph, pass: ComputeTask, count: number): StepGraph {
  const found = allBlocksAgain(step, pass);
  const parts = stagesOfBlocks(found, count, COSTS);
  if (parts === undefined) throw tooFew(step, count);
  return withStages(found.step, parts);
}

/** @param parts the part of which stage each piece of the pass is */
function withStages(step: StepGraph, parts: readonly StagePart[]): StepGraph {
  const pieces = step.tasks.filter(isPiece);
  const tasks = step.tasks.map((task): StepTask => {
    const at = pieces.findIndex((piece) => piece === task);
    const part = parts[at];
    if (part === undefined || task.kind !== "compute") return task;
    const { stage, direction } = part;
    const own = parts.filter((other) => other.stage === stage && other.direction === direction);
    const number = own.length === 1 ? "" : ` ${own.indexOf(part) + 1}`;
    const name = `stage ${stage}, ${WORDS[direction]}${number}`;
    return { ...task, name, stage: { stage, direction } };
  });
  return { ...step, tasks };
}

/**
 * @param split the stages that a timetable says to have W
 * @throws INVALID_OPTION for a stage that has no parameters, or not the parts of its timetable
 */
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
    if (!trains) throw tooFew(step, count);
    if (!split.has(stage) || (has("B") && has("W"))) continue;
    throw new LockstepError(
      "INVALID_OPTION",
      `The timetable of the pipeline has ${stage}W, but stage ${stage} of "${step.name}" computes no gradient that another stage waits for.`,
      { hint: `Leave out ${stage}W: ${stage}B is then the whole backward part.` },
    );
  }
}

function notInBlocks({ name }: StepGraph): LockstepError {
  return new LockstepError(
    "INVALID_OPTION",
    `The stages that a file states for "${name}" are not followed with recompute, which cuts the pass at its blocks.`,
    { hint: "Leave out recompute, or the devices of the file (devices: false)." },
  );
}

function keptTooLong(schedule: string): LockstepError {
  return new LockstepError(
    "INVALID_OPTION",
    `recompute does not go together with ${isSchedule(schedule) ? schedule : "a timetable that has W"}: what W reads would be kept until W.`,
    { hint: "Use 1f1b, interleaved, or a timetable without W." },
  );
}

function tooFew({ name }: StepGraph, count: number): LockstepError {
  return new LockstepError(
    "INVALID_OPTION",
    `parallel: pipeline needs a model that can be cut into ${count} stages with parameters, and "${name}" cannot.`,
    { hint: "Use fewer workers, or a timetable with fewer stages." },
  );
}
