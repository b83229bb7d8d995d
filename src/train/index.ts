export type { TrainerTensors } from "./state.ts";
export {
  type BatchFields,
  createTrainer,
  type FillBatch,
  type StepRequest,
  type StepResult,
  Trainer,
  type TrainerOptions,
} from "./step.ts";
