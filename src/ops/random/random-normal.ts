import { drawn, NORMAL } from "./shared.ts";

/** Normally distributed numbers. */
export const randomNormal = drawn("RandomNormal", NORMAL);
