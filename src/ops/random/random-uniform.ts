import { drawn, UNIFORM } from "./shared.ts";

/** Numbers even in [low, high). */
export const randomUniform = drawn("RandomUniform", UNIFORM);
