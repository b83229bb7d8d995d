export { type AdafactorOptions, adafactor } from "./adafactor.ts";
export { type AdamOptions, adam, adamw } from "./adam.ts";
export { type MuonOptions, muon } from "./muon.ts";
export {
  type Optimizer,
  type ParameterInfo,
  type SlotSpec,
  type StepContext,
  type UpdateContext,
  type Updated,
  type UpdateRule,
  updateType,
} from "./optimizer.ts";
export type { CommonOptions } from "./options.ts";
export {
  constant,
  cosine,
  type DecayShape,
  linear,
  type Schedule,
  scheduleFactor,
  wsd,
} from "./schedule.ts";
export { isSelected, type ParameterSelector } from "./select.ts";
export { type LionOptions, lion, type SgdOptions, sgd } from "./sgd.ts";
