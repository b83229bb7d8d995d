import { stepFunction } from "./shared.ts";

/** The nearest integer; halves are rounded to the even one. */
export const round = stepFunction("Round");
