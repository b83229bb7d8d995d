export { type Arena, planArena } from "./arena.ts";
export {
  type BatchSums,
  fieldsOf,
  resized,
  sizeOf,
  type Term,
  type Totals,
} from "./batch/batch-sums.ts";
export { plainLoss, planLoss } from "./batch/loss.ts";
export { type Measure, type MeasuresPlan, planMeasures } from "./batch/measures.ts";
export { addTail, wideType } from "./batch/whole-batch.ts";
export { type Blocks, backwardOf, blocksOf, forwardNodes } from "./blocks.ts";
export { buildStep, GRADIENT, STOP, type StepOptions } from "./build.ts";
export { type Cut, cutTask, cutWhereReady, inOrderMade } from "./cut.ts";
export { type GradientGraph, gradientGraph } from "./gradient.ts";
export { hashStep, type StepJson, stepFromJson, stepToJson } from "./json.ts";
export { peakOfIntermediates } from "./liveness.ts";
export { buildNamed } from "./named.ts";
export { arenaOf, isPiece, isRepeating, type PassMemory, passMemory } from "./pass.ts";
export { type Phases, phasesOf, unitOf } from "./phases.ts";
export { describeStep } from "./print.ts";
export { cutRepeating, type Repetition } from "./repeat.ts";
export { SUMMARY } from "./step-builder.ts";
export {
  type AverageTask,
  type ComputeTask,
  type DecideTask,
  type GatherTask,
  isOfKind,
  MICRO_BATCH,
  makerOf,
  type NormTask,
  type ReduceTask,
  type Role,
  type StepGraph,
  type StepTask,
  type StepValue,
  type TermSpec,
  type UpdateTask,
  validateStep,
  valueName,
  valueOf,
} from "./step-graph.ts";
export { COUNTED } from "./totals.ts";
export { buildUpdates } from "./updates.ts";
