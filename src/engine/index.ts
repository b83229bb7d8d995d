export type {
  AllocateOptions,
  Binding,
  Bindings,
  CompileOptions,
  Engine,
  EngineBuffer,
  EngineTensor,
  Executable,
  RunOptions,
} from "./engine.ts";
export { evaluate } from "./evaluate.ts";
export {
  type ArenaStatistics,
  createOrtEngine,
  type OrtEngine,
  type OrtEngineOptions,
} from "./ort-native/index.ts";
export { createReferenceEngine } from "./reference/index.ts";
