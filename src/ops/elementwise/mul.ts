import { mul as times } from "../../functional/index.ts";
import { binary } from "./shared.ts";

/** c = a · b; for a square, both terms of the gradient are computed at once. */
export const mul = binary(
  "Mul",
  ({ a, b, dy, toA, toB }) =>
    a.name === b.name
      ? [() => times(times(dy, a), 2), () => undefined]
      : [() => toA(times(dy, b)), () => toB(times(dy, a))],
  { batch: { linear: "each" } },
);
