export type { ArenaStatistics } from "./arena.ts";
export { createOrtEngine, type OrtEngine, type OrtEngineOptions } from "./ort-engine.ts";
