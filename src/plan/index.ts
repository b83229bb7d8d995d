export { type Arena, planArena } from "./arena.ts";
export { type Term } from "./batch/batch-sums.ts";
export { planLoss } from "./batch/loss.ts";
export { type Measure, type MeasuresPlan, planMeasures } from "./batch/measures.ts";
export { fieldsOf, resized, sizeOf } from "./batch/model-batch.ts";
export { addTail, vectorGraph, vectorType, wideType } from "./batch/whole-batch.ts";
export { type Blocks, backwardOf, blocksOf, forwardNodes } from "./blocks.ts";
export { buildStep, GRADIENT } from "./build.ts";
export { type Cut, cutTask, cutWhereReady, inOrderMade } from "./cut.ts";
export { cutAtExchanges, hasExchanges } from "./exchanges.ts";
export { MEMORY_SPEED, PROCESS_BYTES, type StepFacts, stepFacts } from "./facts.ts";
export { hashStep, type StepJson, stepFromJson, stepToJson } from "./json.ts";
export { peakOfIntermediates } from "./liveness.ts";
export { localStep, partOfReplica } from "./local.ts";
export { buildNamed } from "./named.ts";
export {
  arenaOf,
  exchangedIn,
  isPiece,
  isRepeating,
  madeBy,
  type PassMemory,
  type PassPart,
  type PassTask,
  passMemory,
  passParts,
  passTasks,
} from "./pass.ts";
export { cutAtUnits, unitOf } from "./phases.ts";
export { describeStep } from "./print.ts";
export { cutRepeating, type Repetition } from "./repeat.ts";
export {
  DEFAULT_SCHEDULE,
  isSchedule,
  readTimetable,
  SCHEDULES,
  type ScheduleName,
  stageRanks,
  timetableOf,
  timetableOfStages,
} from "./schedules.ts";
export {
  cutIntoStages,
  type StageCosts,
  type StageCut,
  type StageOptions,
  type StagePiece,
  stageMakers,
  stageNeeds,
  stagesOfBlocks,
} from "./stages.ts";
export {
  type Buddy,
  bytesOf,
  type ComputeTask,
  type ExchangeTask,
  type GatherTask,
  isOfKind,
  MICRO_BATCH,
  type NormTask,
  type Pipeline,
  type ReduceTask,
  type Role,
  type StagePart,
  type StepGraph,
  type StepTask,
  type StepValue,
  type UpdateTask,
  validateStep,
  valueName,
  valueOf,
} from "./step-graph.ts";
export {
  bubbleOf,
  checkTimetable,
  type Direction,
  endsOf,
  formatTimetable,
  formatTurn,
  type Needs,
  type PlannedTimetable,
  type PlannedTurn,
  parseTimetable,
  planTimetable,
  ranksOfStages,
  splitStages,
  type Timetable,
  type Turn,
} from "./timetable.ts";
export { COUNTED, TOTALS } from "./totals.ts";
export { buildUpdates } from "./updates.ts";
