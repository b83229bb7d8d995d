import { bitwise } from "./shared.ts";

/** Bit by bit, on integers. */
export const bitwiseXor = bitwise("BitwiseXor");
