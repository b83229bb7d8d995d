export { cutGivesSameBits } from "./check-cut.ts";
export { compileAll } from "./compile.ts";
export { findNotFinite } from "./diagnose.ts";

export { initialize, type OwnRange } from "./initialize.ts";
export { Instance, type StageOptions } from "./instance.ts";

export { instantiate } from "./instantiate.ts";
export { type Decision, decisionIn, decisionOf, Journal, numbersOf } from "./journal.ts";
