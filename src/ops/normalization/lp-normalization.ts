import {
  abs,
  cast,
  div,
  equal,
  mul,
  reduceL2,
  reduceSum,
  sign,
  sqrt,
  sub,
  where,
} from "../../functional/index.ts";
import type {
  Division,
  DivisionContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { byteLength } from "../../tensor/index.ts";
import { along, exceptAlong } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { AXIS, axisOf, checkedFloat, stashType } from "./shared.ts";

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
  divisions: lpDivisions,
  batch: { mixes: ({ attributes, input }) => [axisOf(attributes, input(0).shape)] },
};

/** Along other dims; along that of the norms, sums of powers are exchanged. */
function lpDivisions(context: DivisionContext): Division[] {
  const type = context.input(0);
  const axis = axisOf(context.attributes, type.shape);
  const exchanged = byteLength({ dtype: stashType(type.dtype), shape: type.shape.with(axis, 1) });
  const own = along(context, {
    inputs: [axis],
    outputs: [axis],
    local: (rank) => [lpPart(rank, axis)],
  });
  return [...exceptAlong(context, [axis]), ...own.map((division) => ({ ...division, exchanged }))];
}

/** A part of the elements of each norm. */
function lpPart({ input, attributes, allReduce }: LocalContext, axis: number): Value {
  const { dtype } = input(0);
  // Sums of powers overflow in float16.
  const x = cast(input(0), stashType(dtype));
  const isEuclid = attributes.number("p") === 2;
  const powers = reduceSum(isEuclid ? mul(x, x) : abs(x), { axes: [axis] });
  const total = allReduce(powers, "sum");
  const norm = isEuclid ? sqrt(total) : total;
  return cast(div(x, where(equal(norm, 0), 1, norm)), dtype);
}
