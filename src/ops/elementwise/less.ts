import { NUMBERS, predicate } from "./shared.ts";

/** Whether a < b, as bool. */
export const less = predicate("Less", NUMBERS);
