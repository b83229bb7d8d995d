export { defineModel, type ModelOutputs } from "./define.ts";
export { type InitialValue, initialKey, initialValue } from "./initialize.ts";
export type {
  BuildOptions,
  Initializer,
  Mode,
  Model,
  ModelDefinition,
  Parameter,
  State,
} from "./model.ts";
export { type ParameterOptions, Scope, type StateHandle } from "./scope.ts";
