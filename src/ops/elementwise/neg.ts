import { neg as minus } from "../../functional/index.ts";
import { unary } from "./shared.ts";

/** y = -x. */
export const neg = unary("Neg", ({ dy }) => minus(dy), {
  integers: true,
  batch: { linear: "together" },
});
