import { neg } from "../../functional/index.ts";
import { binary } from "./shared.ts";

/** c = a - b. */
export const sub = binary("Sub", ({ dy, toA, toB }) => [() => toA(dy), () => neg(toB(dy))], {
  batch: { linear: "together" },
  form: { kind: "sum", signs: [1, -1] },
});
