import { binary } from "./shared.ts";

/** c = a + b. */
export const add = binary("Add", ({ dy, toA, toB }) => [() => toA(dy), () => toB(dy)], {
  batch: { linear: "together" },
  form: { kind: "sum", signs: [1, 1] },
});
