import { bitwise } from "./shared.ts";

/** Unsigned integers shifted by the bits in input 1, `direction` LEFT or RIGHT. */
export const bitShift = bitwise("BitShift", { direction: { kind: "string" } });
