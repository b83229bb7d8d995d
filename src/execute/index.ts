export { cutGivesSameBits } from "./check-cut.ts";
export { findNotFinite, type Suspect } from "./diagnose.ts";
export { type ExecuteOptions, executeTasks } from "./execute.ts";
export { type Initialized, initialize } from "./initialize.ts";
export { Instance, instantiate, type StageOptions } from "./instance.ts";
