import { NUMBERS, predicate } from "./shared.ts";

/** Whether a ≥ b, as bool. */
export const greaterOrEqual = predicate("GreaterOrEqual", NUMBERS);
