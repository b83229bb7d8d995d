export { createOrtEngine, type OrtEngine, type OrtEngineOptions } from "./ort-engine.ts";
export type { ArenaStatistics } from "./runtime.ts";
