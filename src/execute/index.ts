export { cutGivesSameBits } from "./check-cut.ts";
export { findNotFinite } from "./diagnose.ts";
export { initialize } from "./initialize.ts";
export { Instance, instantiate, type StageOptions } from "./instance.ts";
export { type Decision, decisionIn, decisionOf, Journal, numbersOf } from "./journal.ts";
