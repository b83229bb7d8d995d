import { stepFunction } from "./shared.ts";

/** The largest integer not above x. */
export const floor = stepFunction("Floor");
