export { planAccumulation } from "./accumulate.ts";
export { cutGivesSameBits } from "./check-cut.ts";
export { type CutGradient, isSegmentTask } from "./cut.ts";
export { type Decision, decideShares } from "./decide-shares.ts";
export { findNotFinite, type Suspect } from "./diagnose.ts";
export type { EvaluationPlan } from "./evaluation.ts";
export { type ExecuteOptions, type Executor, executeTasks } from "./execute.ts";
export {
  type GradientGraph,
  gradientGraph,
} from "./gradient.ts";
export { type Initialized, initialize } from "./initialize.ts";
export {
  type Groups,
  Instance,
  instantiate,
  type StageOptions,
} from "./instance.ts";
export {
  type Layout,
  type LayoutEntry,
  type LayoutGroup,
  type LayoutItem,
  planLayout,
} from "./layout.ts";
export { plainLoss, planLoss } from "./loss.ts";
export type { Measure } from "./measures.ts";
export { type MemoryPlan, type PlannedValue, planMemory } from "./memory-plan.ts";
export type { Summary } from "./norm.ts";
export {
  type CollectiveTask,
  partitionGraph,
  type RankProgram,
  type SegmentTask,
  type Task,
} from "./partition.ts";
export type {
  Axis,
  CollectiveStage,
  GraphSpec,
  Program,
  Run,
  RunStage,
  Stage,
  TaskStage,
  TensorRef,
} from "./program.ts";
export { refsOf } from "./refs.ts";
export {
  type Combination,
  type Contribution,
  evenRanges,
  planLevels,
  planShares,
  type Range,
  type Shares,
  type TrainingShare,
} from "./shares.ts";
export { type SimulatedRank, simulateRanks } from "./simulate.ts";
export { flopsOf, planTimeline, type Speeds, type Timed, type Timeline } from "./timeline.ts";
export { receivedBytes } from "./traffic.ts";
export {
  planTraining,
  type Side,
  type TrainingOptions,
  type TrainingPlan,
} from "./training.ts";
export type { SlotPlan } from "./update-groups.ts";
