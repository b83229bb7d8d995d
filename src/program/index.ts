export {
  collectiveBytes,
  flopsOfStages,
  messageBytes,
  planTimeline,
  receivedBytes,
  type Speeds,
  type Timeline,
} from "./costs.ts";
export { type Decision, decideShares, LEAST_GAIN, savingOf } from "./decide-shares.ts";
export { type Divided, type DividedTensor, type PartRange, partRanges } from "./divided.ts";
export { type EvaluationPlan } from "./evaluation.ts";
export { Heirs, type Heritage } from "./heirs.ts";
export {
  DECISION_BYTES,
  DECISION_NUMBERS,
  type JournalPlan,
  journalPlaces,
  overwritten,
  stageOf,
} from "./journal.ts";
export { type ProgramJson, programFromJson, programToJson } from "./json.ts";
export { planLayout } from "./layout.ts";
export { lower } from "./lower.ts";
export { type Summary, summaryOf } from "./norm.ts";
export { type Gathered, type Held, withoutExtents } from "./ownership.ts";
export {
  type BufferPart,
  type BufferPlace,
  type BufferSpace,
  type BufferSpec,
  COMPUTE,
  type CollectiveStage,
  type Extent,
  type GraphSpec,
  type MessageStage,
  type Program,
  type Run,
  type RunStage,
  residentBytes,
  type SignalStage,
  type Stage,
  type Task,
  type TaskStage,
  type TensorRef,
} from "./program.ts";
export { onDisk, residentMemory, totalOf } from "./resident.ts";
export { evenRanges, planLevels, type Range } from "./shares.ts";
export type { Side, StepProgram } from "./step-program.ts";
export { scalarsOf } from "./update.ts";
export { planWaves } from "./waves.ts";
