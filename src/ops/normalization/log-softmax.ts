import { exp, mul, neg, reduceSum, scatterElements, sub } from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { toNumbers } from "../../tensor/index.ts";
import { flopsPerElement } from "../shared.ts";
import { softmaxDivisions } from "./cut-softmax.ts";
import { AXIS, axisOf, checkedFloat } from "./shared.ts";

/** x − log Σ exp(x) along `axis`. */
export const logSoftmax: OperatorDefinition = {
  name: "LogSoftmax",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: AXIS,
  infer: (context) => [checkedFloat(context)],
  // dy − exp(y) · Σ dy. The dy of a cross-entropy has one nonzero element in each row: it is added
  // at its position, and Σ dy is that element.
  gradient: (context) => {
    const [y, dy] = [context.output(0), context.gradient(0)];
    const axis = axisOf(context.attributes, y.shape);
    const sparse = scattered(context, dy, axis);
    if (sparse === undefined) return [sub(dy, mul(exp(y), reduceSum(dy, { axes: [axis] })))];
    const { indices, updates } = sparse;
    const total = updates.shape[axis] === 1 ? updates : reduceSum(updates, { axes: [axis] });
    return [scatterElements(mul(exp(y), neg(total)), indices, updates, axis, "add")];
  },
  flops: flopsPerElement(5),
  inPlace: false,
  within: "axis",
  batch: { mixes: ({ attributes, input }) => [axisOf(attributes, input(0).shape)] },
  divisions: (context) => softmaxDivisions(context, true),
};

/**
 * If `dy` was made by scattering along `axis` into zeros (the gradient of GatherElements), what was
 * scattered.
 */
function scattered(
  context: GradientContext,
  dy: Value,
  axis: number,
): { indices: Value; updates: Value } | undefined {
  const { builder } = context;
  const node = builder.makerOf(dy);
  if (node?.op !== "ScatterElements" || node.attributes["reduction"]?.value !== "add") {
    return undefined;
  }
  const [base, indices, updates] = node.inputs.map((name) => builder.value(name));
  if (base === undefined || indices === undefined || updates === undefined) return undefined;
  const others = updates.shape.every((size, dim) => dim === axis || size === dy.shape[dim]);
  const along = node.attributes["axis"]?.value ?? 0;
  return others && isZero(base) && (along === axis || along === axis - dy.shape.length)
    ? { indices, updates }
    : undefined;
}

/** Whether a value is all zeros by construction. */
function isZero(x: Value): boolean {
  const constant = x.builder.constantOf(x);
  if (constant !== undefined) return toNumbers(constant).every((value) => value === 0);
  const maker = x.builder.makerOf(x);
  const inputs = maker?.inputs.map((name) => x.builder.value(name)) ?? [];
  switch (maker?.op) {
    case "Cast":
    case "Expand":
    case "Reshape":
      return isZero(inputs[0] as Value);
    case "Sub":
      return inputs[0] === inputs[1];
    default:
      return false;
  }
}
