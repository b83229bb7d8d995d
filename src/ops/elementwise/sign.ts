import { stepFunction } from "./shared.ts";

/** y = -1, 0 or 1. */
export const sign = stepFunction("Sign", { integers: true });
