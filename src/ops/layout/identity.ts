import type { OperatorDefinition } from "../../graph/index.ts";
import { byElement } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** A copy under another name. */
export const identity: OperatorDefinition = {
  name: "Identity",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => [context.input(0)],
  gradient: (context) => [context.gradient(0)],
  flops: noFlops,
  moves: true,
  inPlace: true,
  batch: { linear: "together" },
  divisions: byElement,
};
