import { drawnLike, NORMAL } from "./shared.ts";

/**
 * Normally distributed numbers in the shape of the input. In training, models draw by the key of
 * each sample instead.
 */
export const randomNormalLike = drawnLike("RandomNormalLike", NORMAL);
