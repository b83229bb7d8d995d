export type {
  AllocateHostOptions,
  Binding,
  Bindings,
  CompileOptions,
  Device,
  DeviceBuffer,
  DeviceTensor,
  Executable,
  HostBuffer,
  HostTensor,
  RunCounts,
  RunOptions,
  Space,
} from "./engine.ts";
export { evaluate } from "./evaluate.ts";
export {
  type ArenaStatistics,
  createOrtEngine,
  type OrtEngine,
  type OrtEngineOptions,
} from "./ort-native/index.ts";
export { createReferenceEngine } from "./reference/index.ts";
