import {
  abs,
  div,
  equal,
  mul,
  reduceL2,
  reduceSum,
  sign,
  sub,
  where,
} from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { exceptAlong } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { AXIS, axisOf, checkedFloat } from "./shared.ts";

/** x divided by its p-norm along `axis`, with p 1 or 2. A line of zeros stays zero. */
export const lpNormalization: OperatorDefinition = {
  name: "LpNormalization",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { ...AXIS, p: { kind: "int", default: 2 } },
  infer: (context) => {
    const p = context.attributes.number("p");
    if (p !== 1 && p !== 2) context.fail(`p is 1 or 2, got ${p}`);
    return [checkedFloat(context)];
  },
  // (dy − d · Σ dy·y) / norm, where d is the derivative of the norm: y for p = 2, sign(x) for p =
  // 1.
  gradient: (context) => {
    const [x, y, dy] = [context.input(0), context.output(0), context.gradient(0)];
    const axes = [axisOf(context.attributes, x.shape)];
    const isEuclid = context.attributes.number("p") === 2;
    const norm = isEuclid ? reduceL2(x, { axes }) : reduceSum(abs(x), { axes });
    const safe = where(equal(norm, 0), 1, norm);
    const along = reduceSum(mul(dy, y), { axes });
    return [div(sub(dy, mul(isEuclid ? div(x, safe) : sign(x), along)), safe)];
  },
  flops: flopsPerElement(4),
  inPlace: false,
  divisions: (context) =>
    exceptAlong(context, [axisOf(context.attributes, context.input(0).shape)]),
  batch: { mixes: ({ attributes, input }) => [axisOf(attributes, input(0).shape)] },
};
