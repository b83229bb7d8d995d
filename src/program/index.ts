export { planAccumulation } from "./accumulate.ts";
export type { MemoryKind } from "./buffers.ts";
export { type Decision, decideShares } from "./decide-shares.ts";
export { type EvaluationPlan } from "./evaluation.ts";
export { type FlatVectors, flatVectors } from "./flat.ts";
export { type ProgramJson, programFromJson, programToJson } from "./json.ts";
export {
  type Layout,
  type LayoutEntry,
  type LayoutGroup,
  type LayoutItem,
  planLayout,
} from "./layout.ts";
export { type Ground, groupsOfRank, rankGroups } from "./levels.ts";
export { type LowerOptions, lower, type Side, type StepProgram } from "./lower.ts";
export { type Summary, summaryOf } from "./norm.ts";
export {
  type BufferPlace,
  type BufferSpec,
  COMPUTE,
  type CollectiveStage,
  type GraphSpec,
  type Program,
  type Run,
  type RunStage,
  residentBytes,
  type Stage,
  type Task,
  type TaskStage,
  type TensorRef,
} from "./program.ts";
export { refsOf } from "./refs.ts";
export { type Resident, residentMemory, totalOf } from "./resident.ts";
export { type Held } from "./share-update.ts";
export {
  type Combination,
  type Contribution,
  evenRanges,
  planLevels,
  planShares,
  type Range,
  type Shares,
} from "./shares.ts";
export {
  collectiveBytes,
  flopsOfStages,
  planTimeline,
  type Speeds,
  type Timed,
  type Timeline,
} from "./timeline.ts";
export { receivedBytes } from "./traffic.ts";
export { type ScalarPlan, scalarsOf } from "./update.ts";
