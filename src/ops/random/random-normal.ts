import { drawn, NORMAL } from "./shared.ts";

/** Normal numbers. */
export const randomNormal = drawn("RandomNormal", NORMAL);
