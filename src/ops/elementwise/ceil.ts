import { stepFunction } from "./shared.ts";

/** The smallest integer not below x. */
export const ceil = stepFunction("Ceil");
