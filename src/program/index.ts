export { planAccumulation } from "./accumulate.ts";
export { cutGivesSameBits } from "./check-cut.ts";
export { type Decision, decideShares } from "./decide-shares.ts";
export { findNotFinite, type Suspect } from "./diagnose.ts";
export type { EvaluationPlan } from "./evaluation.ts";
export { type ExecuteOptions, executeTasks } from "./execute.ts";
export { type FlatVectors, flatVectors } from "./flat.ts";
export { type Initialized, initialize } from "./initialize.ts";
export {
  Instance,
  instantiate,
  type StageOptions,
} from "./instance.ts";
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
export type {
  CollectiveStage,
  GraphSpec,
  Program,
  Run,
  RunStage,
  Stage,
  Task,
  TaskStage,
  TensorRef,
} from "./program.ts";
export { COMPUTE, residentBytes } from "./program.ts";
export { refsOf } from "./refs.ts";
export { type MemoryKind, type Resident, residentMemory, totalOf } from "./resident.ts";
export type { Held } from "./share-update.ts";
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
  flopsOf,
  flopsOfStages,
  planTimeline,
  type Speeds,
  type Timed,
  type Timeline,
} from "./timeline.ts";
export { receivedBytes } from "./traffic.ts";
export { type ScalarPlan, scalarsOf } from "./update.ts";
