export { openStep, readCheckpointHead, requireWhole } from "./checkpoint.ts";
export { columns, size } from "./columns.ts";
export { DISK_FAULTS, type DiskFault, DiskFaults } from "./disk-faults.ts";
export { exportCheckpoint } from "./export-checkpoint.ts";
export { type Fingerprint } from "./fingerprint.ts";
export {
  type Beginning,
  COMMAND_FILE,
  FILES,
  namedFolder,
  openRunFolder,
  type RunFolder,
} from "./folder.ts";
export { type GenerateOptions, generateText } from "./generate.ts";
export { type CheckpointHead } from "./head.ts";
export { CHANGEABLE, type Changeable, changesBetween } from "./identity.ts";
export { loadRun } from "./load.ts";
export { type FolderLock, type LockOptions, lockFolder } from "./lock.ts";
export { type TrainResult, train } from "./loop.ts";
export { isOfGroup, isTooFew, type Members } from "./members.ts";
export { settleMicroBatches } from "./micro-batches.ts";
export { describePlan, findParallel, type PlanOptions, planAsJson } from "./plan.ts";
export { type PlanFileOptions, writePlan } from "./plan-file.ts";
export { type Rehearsal, type RehearsalOptions, rehearse } from "./rehearse.ts";
export { type Chosen, chooseCheckpoint } from "./resume.ts";
export { defineRun, overrideRun, type Run, type RunOptions, type RunOverrides } from "./run.ts";
export { type TrainOptions } from "./session.ts";
export { type WeightsPlace } from "./weights-place.ts";
