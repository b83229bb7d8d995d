import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";
import { meshAxis } from "./shared.ts";

/**
 * Gives a tensor to rank `to` of the group. Its output is an empty tensor, a sign that it was given: what must come
 * after it takes it as an input.
 */
export const send: OperatorDefinition = {
  name: "lockstep::Send",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { axis: meshAxis, to: { kind: "int" }, tag: { kind: "int", default: 0 } },
  infer: () => [{ dtype: "bool", shape: [0] }],
  gradient: { missing: "A pipeline writes the way back of its stages itself." },
  flops: noFlops,
  inPlace: false,
};
