import {
  add,
  expand,
  matmul,
  mul,
  range,
  reshape,
  slice,
  transpose,
} from "../../functional/index.ts";
import type {
  GradientContext,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount, type Shape, sameShape } from "../../tensor/index.ts";
import { placesOf, readWindow, WINDOW_ATTRIBUTES, type Window } from "../convolution/index.ts";
import { along } from "../divisions.ts";
import { floatType, throughComposition, unsupported } from "../shared.ts";
import { linearTaps, readTaps, zeroOutside } from "./taps.ts";

const { auto_pad: _, ...windowAttributes } = WINDOW_ATTRIBUTES;

/**
 * A two-dimensional convolution whose kernel reads X (N, C, sizes) at displaced positions (Dai et
 * al. 2017; Zhu et al. 2019). Inputs: X, W (M, C/group, kernel), offsets (N, groups of offsets ·
 * kernel · 2, positions), B (M), and a factor for each position read (N, groups · kernel,
 * positions).
 */
export const deformConv: OperatorDefinition = {
  name: "DeformConv",
  inputs: [3, 5],
  outputs: [1, 1],
  attributes: {
    ...windowAttributes,
    group: { kind: "int", default: 1 },
    offset_group: { kind: "int", default: 1 },
  },
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    const places = checkedPlaces(context);
    return [{ dtype, shape: [shape[0] as number, context.input(1).shape[0] as number, ...places] }];
  },
  gradient: throughComposition((context) => [convolve(context)]),
  flops: (context) => {
    const perElement = elementCount(context.input(1).shape.slice(1));
    return 10 * perElement * elementCount(context.outputs[0]?.shape ?? []);
  },
  inPlace: false,
  divisions: (context) => {
    // Samples: of the image, of the offsets, and of the mask.
    const samples = [0, undefined, 0, undefined, 0];
    // Channels of the result: of the kernel, and of the bias.
    const channels = [undefined, 0, undefined, 0, undefined];
    const cut = (dims: readonly (number | undefined)[], to: number) =>
      along(context, {
        inputs: context.inputs.map((type, index) => (type === undefined ? undefined : dims[index])),
        outputs: [to],
      });
    const isGrouped = context.attributes.number("group") > 1;
    return [...cut(samples, 0), ...(isGrouped ? [] : cut(channels, 1))];
  },
};

function windowOf({ attributes }: Pick<InferContext, "attributes">, x: Shape, w: Shape): Window {
  return readWindow(attributes, x.slice(2), w.slice(2));
}

function checkedPlaces(context: InferContext): readonly number[] {
  const [x, w, offsets] = [context.input(0), context.input(1), context.input(2)];
  const { attributes } = context;
  const [groups, moved] = [attributes.number("group"), attributes.number("offset_group")];
  if (context.inputs.some((type) => type !== undefined && type.dtype !== x.dtype)) {
    context.failType("inputs must have one element type");
  }
  if (x.shape.length !== 4 || w.shape.length !== 4) {
    unsupported(
      context,
      `an input of ${x.shape.length} dims`,
      "Only kernels of two dims are known.",
    );
  }
  const [batch, channels] = x.shape as [number, number];
  const outputs = w.shape[0] as number;
  if (channels !== (w.shape[1] as number) * groups || outputs % groups !== 0) {
    context.fail(`${channels} channels and ${outputs} outputs do not divide into ${groups} groups`);
  }
  if (channels % moved !== 0) {
    context.fail(`${channels} channels do not divide into ${moved} groups of offsets`);
  }
  const places = placesOf(windowOf(context, x.shape, w.shape), x.shape.slice(2));
  if (places.some((count) => count < 1)) context.fail("the kernel is larger than the input");
  const read = moved * elementCount(w.shape.slice(2));
  const check = (what: string, index: number, shape: Shape) => {
    const given = context.inputs[index]?.shape;
    if (given !== undefined && !sameShape(given, shape)) {
      context.fail(`${what} of shape [${shape.join(", ")}] fit this kernel`);
    }
  };
  check("offsets", 2, [batch, 2 * read, ...places]);
  check("biases", 3, [outputs]);
  check("factors", 4, [batch, read, ...places]);
  return offsets.shape.slice(2);
}

/**
 * Reads the displaced positions of each group of offsets, then multiplies by the kernel as a
 * matrix.
 */
function convolve(context: GradientContext): Value {
  const [x, w, offsets] = [context.input(0), context.input(1), context.input(2)];
  const [bias, factors] = [context.inputs[3], context.inputs[4]];
  const [batch, channels, ...sizes] = x.shape as [number, number, number, number];
  const [outputs, perGroup, ...kernel] = w.shape as [number, number, number, number];
  const moved = context.attributes.number("offset_group");
  const groups = context.attributes.number("group");
  const elements = elementCount(kernel);
  const places = offsets.shape.slice(2);
  const count = elementCount(places);
  const window = windowOf(context, x.shape, w.shape);
  const parts = reshape(offsets, [batch * moved, elements, 2, count]);
  const taps = sizes.map((size, dim) => {
    const own = slice(parts, [{ axis: 2, start: dim, end: dim + 1 }]);
    const at = add(
      reshape(own, [batch * moved, elements, count]),
      unmoved(context, window, places, dim),
    );
    return zeroOutside(linearTaps(reshape(at, [batch * moved, elements * count])), size);
  });
  const pictures = reshape(x, [batch * moved, channels / moved, ...sizes]);
  let read = readTaps(pictures, taps);
  if (factors !== undefined)
    read = mul(read, reshape(factors, [batch * moved, elements * count, 1]));
  const columns = transpose(read, [0, 2, 1]);
  const product = matmul(
    reshape(w, [groups, outputs / groups, perGroup * elements]),
    reshape(columns, [batch, groups, perGroup * elements, count]),
  );
  const result = reshape(product, [batch, outputs, ...places]);
  return bias === undefined ? result : add(result, reshape(bias, [outputs, 1, 1]));
}

/**
 * (kernel, positions): the coordinate along `dim` that each element of the kernel reads at each
 * position, without displacement.
 */
function unmoved(context: GradientContext, window: Window, places: Shape, dim: number): Value {
  const { builder } = context;
  const { dtype } = context.input(0);
  const along = (sizes: Shape, start: number, step: number): Value => {
    const size = sizes[dim] as number;
    const numbers = range(builder, dtype, start, start + size * step, step);
    const shape = sizes.map((_, at) => (at === dim ? size : 1));
    return expand(reshape(numbers, shape), sizes);
  };
  const ofKernel = along(window.kernel, 0, window.dilations[dim] as number);
  const ofPlaces = along(places, -(window.before[dim] as number), window.strides[dim] as number);
  return add(
    reshape(ofKernel, [elementCount(window.kernel), 1]),
    reshape(ofPlaces, [1, elementCount(places)]),
  );
}
