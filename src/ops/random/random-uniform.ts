import { drawn, UNIFORM } from "./shared.ts";

/** Uniform numbers in [low, high). */
export const randomUniform = drawn("RandomUniform", UNIFORM);
