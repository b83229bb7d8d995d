import { and, greater, less, sumTo, where } from "../../functional/index.ts";
import type { OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { byElement } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { numberType } from "./shared.ts";

/** y = x clamped to a minimum (input 1) and a maximum (input 2), each of which may be omitted. */
export const clip: OperatorDefinition = {
  name: "Clip",
  inputs: [1, 3],
  outputs: [1, 1],
  attributes: {},
  infer: (context) => {
    const x = numberType(context, true);
    for (const bound of context.inputs.slice(1)) {
      if (bound === undefined) continue;
      if (bound.dtype !== x.dtype) context.failType("bounds must have the type of x");
      if (elementCount(bound.shape) !== 1) context.fail("bounds must be single numbers");
    }
    return [x];
  },
  gradient: (context) => {
    const [x, low, high] = [context.input(0), context.inputs[1], context.inputs[2]];
    const dy = context.gradient(0);
    const tests = [low && greater(x, low), high && less(x, high)].filter(isGiven);
    const [first, second] = tests;
    const isInside = first && second ? and(first, second) : first;
    return [
      // At a bound the derivative is 0, as in PyTorch (2.15): ReLU6 is a clip, too.
      context.needs(0) ? (isInside ? where(isInside, dy, 0) : dy) : undefined,
      low && context.needs(1) ? sumTo(where(less(x, low), dy, 0), low.shape) : undefined,
      high && context.needs(2) ? sumTo(where(greater(x, high), dy, 0), high.shape) : undefined,
    ];
  },
  flops: flopsPerElement(2),
  inPlace: true,
  within: "elements",
  divisions: byElement,
};

function isGiven(value: Value | undefined): value is Value {
  return value !== undefined;
}
