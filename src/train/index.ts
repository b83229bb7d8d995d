export { collectedBytes } from "./collect.ts";
export { meetRoom, memoryLimit, type Room } from "./memory.ts";
export { type PartedTensor, StateParts, stateBytes } from "./parts.ts";
export { parameterBytes, type Ranks, sharingOf } from "./sharing.ts";
export { type TrainerTensors } from "./state.ts";
export { createTrainer, Trainer } from "./step.ts";
export {
  type BatchFields,
  type FillBatch,
  type StepRequest,
  type StepResult,
  type TrainerOptions,
} from "./step-types.ts";
