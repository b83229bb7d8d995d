import { reshape as toShape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { withSizes } from "../divisions.ts";
import { noFlops } from "../shared.ts";
import { sameElements } from "./same-elements.ts";

/**
 * The same elements in another shape. One size may be -1; a size 0 copies the input's (unless
 * `allowzero`).
 */
export const reshape: OperatorDefinition = {
  name: "Reshape",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: { allowzero: { kind: "int", default: 0 } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const allowZero = context.attributes.number("allowzero") === 1;
    const wanted = context
      .constantNumbers(1)
      .map((size, dim) => (size === 0 && !allowZero ? (shape[dim] ?? 0) : size));
    const total = elementCount(shape);
    const known = elementCount(wanted.filter((size) => size !== -1));
    const result = wanted.map((size) => (size === -1 ? total / known : size));
    const isWhole = result.every(Number.isInteger) && elementCount(result) === total;
    if (wanted.filter((size) => size === -1).length > 1 || !isWhole) {
      context.fail(`cannot reshape ${total} elements to [${wanted.join(", ")}]`);
    }
    return [{ dtype, shape: result }];
  },
  gradient: (context) => [toShape(context.gradient(0), context.input(0).shape), undefined],
  flops: noFlops,
  moves: true,
  inPlace: true,
  batch: { linear: "first" },
  divisions: (context) => sameElements(context, withSizes(1)),
};
