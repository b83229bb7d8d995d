import { drawnLike, UNIFORM } from "./shared.ts";

/** Uniform numbers in [low, high) in the shape of the input. */
export const randomUniformLike = drawnLike("RandomUniformLike", UNIFORM);
