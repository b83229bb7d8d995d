import { mul, reduceSum, reshape, sub, swapLast } from "../../functional/index.ts";
import type { OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount, sameShape } from "../../tensor/index.ts";
import { flopsPerElement } from "../shared.ts";
import { softmaxDivisions } from "./cut-softmax.ts";
import { AXIS, axisOf, checkedFloat } from "./shared.ts";

/** exp(x) / Σ exp(x) along `axis`. */
export const softmax: OperatorDefinition = {
  name: "Softmax",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: AXIS,
  infer: (context) => [checkedFloat(context)],
  // p · (dp − Σ p·dp)
  gradient: (context) => {
    const [p, dp] = [context.output(0), context.gradient(0)];
    const axis = axisOf(context.attributes, p.shape);
    const total = axis === p.shape.length - 1 ? sumFromProduct(p, dp) : undefined;
    return [mul(p, sub(dp, total ?? reduceSum(mul(p, dp), { axes: [axis] })))];
  },
  flops: flopsPerElement(5),
  inPlace: false,
  within: "axis",
  batch: { mixes: ({ attributes, input }) => [axisOf(attributes, input(0).shape)] },
  divisions: (context) => softmaxDivisions(context, false),
};

/**
 * Σ p·dp in attention: if y = p · v and dp = dy · vᵀ, it is Σ y·dy, a sum over a head's width
 * instead of all keys (Dao et al. 2022). Undefined if p and dp are not of this form.
 */
function sumFromProduct(p: Value, dp: Value): Value | undefined {
  const { builder } = p;
  const product = builder.makerOf(unshaped(dp));
  if (product?.op !== "MatMul") return undefined;
  const [dy, swapped] = product.inputs.map((name) => builder.value(name)) as [Value, Value];
  const user = builder.nodes.find((node) => node.op === "MatMul" && node.inputs[0] === p.name);
  const [, v] = user?.inputs.map((name) => builder.value(name)) ?? [];
  const values = swapLast(swapped);
  if (user === undefined || v === undefined || !sameMatrices(v, values)) return undefined;
  if (unshaped(v) !== unshaped(values)) return undefined;
  const y = builder.value(user.outputs[0] as string);
  if (!sameMatrices(y, dy)) return undefined;
  return reduceSum(mul(y, reshape(dy, y.shape)), { axes: [-1] });
}

/** The value before any Reshapes. */
function unshaped(x: Value): Value {
  const maker = x.builder.makerOf(x);
  return maker?.op === "Reshape" ? unshaped(x.builder.value(maker.inputs[0] as string)) : x;
}

/**
 * Whether two values are the same number of matrices of the same size: a Reshape from one to the
 * other moves no element.
 */
function sameMatrices(a: Value, b: Value): boolean {
  return (
    elementCount(a.shape) === elementCount(b.shape) &&
    sameShape(a.shape.slice(-2), b.shape.slice(-2))
  );
}
