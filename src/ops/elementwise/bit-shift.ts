import { bitwise } from "./shared.ts";

/** Unsigned integers shifted by the numbers of bits in input 1, in `direction` LEFT or RIGHT. */
export const bitShift = bitwise("BitShift", { direction: { kind: "string" } });
