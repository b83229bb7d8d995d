import { stepFunction } from "./shared.ts";

/** To the nearest integer, halves to the even one. */
export const round = stepFunction("Round");
