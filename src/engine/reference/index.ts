export { createReferenceEngine } from "./reference-engine.ts";
