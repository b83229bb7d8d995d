import type { OperatorDefinition } from "../../graph/index.ts";
import { noFlops } from "../shared.ts";
import { alongAxis, axisOf, checkIndices, dimOf, picksAlongAxis, sumAt } from "./shared.ts";

/**
 * For each element of input 1, the element of input 0 at the same position, but at that index along
 * `axis`.
 */
export const gatherElements: OperatorDefinition = {
  name: "GatherElements",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: { axis: { kind: "int", default: 0 } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const axis = axisOf(context, shape);
    const wanted = checkIndices(context, 1);
    const fits = wanted.every((size, dim) => dim === axis || size <= (shape[dim] ?? 0));
    if (wanted.length !== shape.length || !fits) {
      context.fail("indices have as many dims as the data, and none longer but the axis");
    }
    return [{ dtype, shape: wanted }];
  },
  gradient: (context) => {
    const [x, indices, dy] = [context.input(0), context.input(1), context.gradient(0)];
    const axis = dimOf(context, x.shape);
    return [sumAt(indices, dy, axis, x.shape), undefined];
  },
  flops: noFlops,
  moves: true,
  // Gather and scatter of PyTorch and other frameworks refuse negative indices.
  indices: (context) => alongAxis(context, false),
  inPlace: false,
  batch: { picks: picksAlongAxis },
};
