export { noRoomBeside } from "./beside.ts";
export { collectedBytes } from "./collect.ts";
export { createTrainer, joinTrainer } from "./create.ts";
export { diskFor, diskRoom } from "./disk.ts";
export { positionsOf } from "./keys.ts";
export { meetRoom, memoryLimit, type Room } from "./memory.ts";
export type { PartedTensor } from "./parted.ts";
export { StateParts, stateBytes } from "./parts.ts";
export { type Prepared, prepare } from "./prepare.ts";
export { parameterBytes, type Ranks, sharingOf } from "./sharing.ts";
export { initialTensors, type TrainerTensors } from "./state.ts";
export { Trainer } from "./step.ts";
export {
  type BatchFields,
  type CommittedStep,
  type FillBatch,
  type Healed,
  type StepRequest,
  type StepResult,
  type TrainerOptions,
} from "./step-types.ts";
