export { createOrtEngine, type OrtEngineOptions } from "./ort-engine.ts";
