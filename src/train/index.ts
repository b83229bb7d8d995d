export { readCheckpointHead } from "./checkpoint.ts";
export type { Fingerprint } from "./fingerprint.ts";
export { type Beginning, FILES, openRunFolder, type RunFolder } from "./folder.ts";
export { type GenerateOptions, generateText } from "./generate.ts";
export { CHANGEABLE, type Changeable } from "./identity.ts";
export { loadRun } from "./load.ts";
export { type TrainResult, train } from "./loop.ts";
export { settleMicroBatches } from "./micro-batches.ts";
export { describePlan, type PlanOptions, planAsJson } from "./plan.ts";
export { type Rehearsal, type RehearsalOptions, rehearse } from "./rehearse.ts";
export {
  defineRun,
  overrideRun,
  type Run,
  type RunOptions,
  type RunOverrides,
} from "./run.ts";
export type { TrainOptions } from "./session.ts";
export type { Ranks } from "./sharing.ts";
export type { TrainerTensors } from "./state.ts";
export { createTrainer, Trainer } from "./step.ts";
export type {
  BatchFields,
  FillBatch,
  StepRequest,
  StepResult,
  TrainerOptions,
} from "./step-types.ts";
