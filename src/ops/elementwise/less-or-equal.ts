import { NUMBERS, predicate } from "./shared.ts";

/** Whether a ≤ b, as bool. */
export const lessOrEqual = predicate("LessOrEqual", NUMBERS);
