import { reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { noFlops } from "../shared.ts";
import { sameElements } from "./same-elements.ts";

/** The input as a matrix: dims before `axis` become the rows, the others the columns. */
export const flatten: OperatorDefinition = {
  name: "Flatten",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { axis: { kind: "int", default: 1 } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const given = context.attributes.number("axis");
    const axis = given < 0 ? given + shape.length : given;
    if (axis < 0 || axis > shape.length) context.fail(`axis ${given} is out of range`);
    return [
      { dtype, shape: [elementCount(shape.slice(0, axis)), elementCount(shape.slice(axis))] },
    ];
  },
  gradient: (context) => [reshape(context.gradient(0), context.input(0).shape)],
  flops: noFlops,
  moves: true,
  inPlace: true,
  batch: { linear: "first" },
  divisions: (context) => sameElements(context),
};
