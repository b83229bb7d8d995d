export type { AdafactorOptions } from "./adafactor.ts";
export type { AdamOptions } from "./adam.ts";
export type { MuonOptions } from "./muon.ts";
export {
  type ParameterInfo,
  type Rules,
  type SlotSpec,
  type StepContext,
  type UpdateContext,
  type Updated,
  type UpdateRule,
  updateType,
} from "./optimizer.ts";
export type { CommonOptions } from "./options.ts";
export {
  adafactor,
  adam,
  adamw,
  lion,
  muon,
  type Optimizer,
  type OptimizerKind,
  optimizerOf,
  rulesOf,
  sgd,
} from "./registry.ts";
export {
  constant,
  cosine,
  type DecayShape,
  linear,
  type Schedule,
  scheduleFactor,
  scheduleOf,
  wsd,
} from "./schedule.ts";
export { isSelected, type ParameterSelector } from "./select.ts";
export type { LionOptions, SgdOptions } from "./sgd.ts";
