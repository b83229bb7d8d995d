import {
  abs,
  add,
  clip,
  concat,
  div,
  equal,
  floor,
  mul,
  reshape,
  slice,
  sub,
  transpose,
  where,
} from "../../functional/index.ts";
import type {
  AttributeReader,
  GradientContext,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along, linearDivisions } from "../divisions.ts";
import { floatType, throughComposition, unsupported } from "../shared.ts";
import { column, linearTaps, readTaps, type Taps, zeroOutside } from "./taps.ts";

/**
 * X (N, C, …sizes) read at the coordinates of the grid (N, …positions, dims). The last dim of X
 * comes first in a coordinate, and coordinates go from -1 to 1 (Jaderberg et al. 2015, "Spatial
 * Transformer Networks").
 */
export const gridSample: OperatorDefinition = {
  name: "GridSample",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {
    align_corners: { kind: "int", default: 0 },
    mode: { kind: "string", default: "linear" },
    padding_mode: { kind: "string", default: "zeros" },
  },
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    const grid = context.input(1);
    checkModes(context, shape.length - 2);
    if (grid.dtype !== dtype) context.failType("the grid has the input's element type");
    const rank = shape.length;
    if (rank < 4 || rank > 5 || grid.shape.length !== rank || grid.shape[rank - 1] !== rank - 2) {
      context.fail("takes an input (N, C, sizes) and a grid (N, places, dims) of 2 or 3 dims");
    }
    if (grid.shape[0] !== shape[0]) context.fail("input and grid have one batch");
    return [{ dtype, shape: [...shape.slice(0, 2), ...grid.shape.slice(1, -1)] }];
  },
  gradient: throughComposition((context) => [sample(context)]),
  flops: (context) => {
    const taps = context.attributes.string("mode") === "cubic" ? 4 : 2;
    const result = elementCount(context.outputs[0]?.shape ?? []);
    return 2 * taps ** (context.input(0).shape.length - 2) * result;
  },
  inPlace: false,
  divisions: (context) => {
    const spatial = context.input(1).shape.slice(1, -1);
    return [
      ...along(context, { inputs: [0, 0], outputs: [0] }),
      ...along(context, { inputs: [1, undefined], outputs: [1] }),
      ...spatial.flatMap((_, dim) =>
        along(context, { inputs: [undefined, dim + 1], outputs: [dim + 2] }),
      ),
      ...linearDivisions(context, "first"),
    ];
  },
};

function checkModes(context: InferContext, dims: number): void {
  const [mode, padding] = [
    context.attributes.string("mode"),
    context.attributes.string("padding_mode"),
  ];
  if (!["linear", "nearest", "cubic"].includes(mode) || (mode === "cubic" && dims !== 2)) {
    unsupported(context, `mode "${mode}" over ${dims} dims`);
  }
  if (!["zeros", "border", "reflection"].includes(padding)) {
    unsupported(context, `padding_mode "${padding}"`);
  }
}

function sample(context: GradientContext): Value {
  const [x, grid] = [context.input(0), context.input(1)];
  const [batch, channels, ...sizes] = x.shape as [number, number, ...number[]];
  const places = grid.shape.slice(1, -1);
  const flat = reshape(grid, [batch, elementCount(places), sizes.length]);
  const taps = sizes.map((size, dim) => {
    const at = sizes.length - 1 - dim;
    const along = slice(flat, [{ axis: 2, start: at, end: at + 1 }]);
    return tapsAlong(context.attributes, reshape(along, flat.shape.slice(0, 2)), size);
  });
  const read = transpose(readTaps(x, taps), [0, 2, 1]);
  return reshape(read, [batch, channels, ...places]);
}

/** The taps along a dim of `size` at the coordinates `given`, (batch, positions) from -1 to 1. */
function tapsAlong(attributes: AttributeReader, given: Value, size: number): Taps {
  const isAligned = attributes.number("align_corners") === 1;
  const isZero = attributes.string("padding_mode") === "zeros";
  const x = isAligned
    ? mul(add(given, 1), (size - 1) / 2)
    : div(sub(mul(add(given, 1), size), 1), 2);
  const inside = (value: Value): Value => {
    if (isZero) return value;
    const back =
      attributes.string("padding_mode") === "reflection" ? reflect(value, size, isAligned) : value;
    return clip(back, 0, size - 1);
  };
  let taps: Taps;
  switch (attributes.string("mode")) {
    case "linear":
      taps = linearTaps(inside(x));
      break;
    case "cubic": {
      const { at, weight } = cubicTaps(x);
      taps = { at: inside(at), weight };
      break;
    }
    default: {
      const at = column(given.builder.one("Round", [inside(x)]));
      taps = { at, weight: add(mul(at, 0), 1) };
    }
  }
  return isZero ? zeroOutside(taps, size) : taps;
}

/**
 * Mirrors coordinates that lie outside, at the centres of the outermost elements (aligned) or at
 * their edges.
 */
function reflect(x: Value, size: number, isAligned: boolean): Value {
  const low = isAligned ? 0 : -0.5;
  const span = isAligned ? size - 1 : size;
  if (span === 0) return mul(x, 0);
  const from = abs(sub(x, low));
  const flips = floor(div(from, span));
  const rest = sub(from, mul(flips, span));
  const isEven = equal(mul(floor(div(flips, 2)), 2), flips);
  return add(where(isEven, rest, sub(span, rest)), low);
}

/**
 * The taps of Keys's cubic kernel (1981) with a = -0.75 over the four neighbours of `x` (batch,
 * positions).
 */
function cubicTaps(x: Value): Taps {
  const a = -0.75;
  const low = floor(x);
  const part = sub(x, low);
  const near = (d: Value) => add(mul(mul(sub(mul(d, a + 2), a + 3), d), d), 1);
  const far = (d: Value) => sub(mul(add(mul(sub(mul(d, a), 5 * a), d), 8 * a), d), 4 * a);
  const weights = [far(add(part, 1)), near(part), near(sub(1, part)), far(sub(2, part))];
  const places = [sub(low, 1), low, add(low, 1), add(low, 2)];
  return { at: concat(places.map(column), 1), weight: concat(weights.map(column), 1) };
}
