import { reduceSum } from "../../functional/index.ts";
import type {
  AttributeReader,
  GradientContext,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount, type Shape } from "../../tensor/index.ts";
import { floatType } from "../shared.ts";
import { convDivisions } from "./conv-divisions.ts";
import { checkBias, operandShapes } from "./kernel.ts";
import { kernelGradient } from "./kernel-gradient.ts";
import {
  extent,
  placesOf,
  readWindow,
  WINDOW_ATTRIBUTES,
  type Window,
  windowAttributes,
} from "./window.ts";

/** Convolution (cross-correlation) of X (N, C, …) with W (M, C/group, …); B (M) is added. */
export const conv: OperatorDefinition = {
  name: "Conv",
  inputs: [2, 3],
  outputs: [1, 1],
  attributes: { ...WINDOW_ATTRIBUTES, group: { kind: "int", default: 1 } },
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    const window = windowOf(context.attributes, shape, checkedKernel(context));
    const places = placesOf(window, shape.slice(2));
    if (places.some((count) => count < 1)) context.fail("the kernel is larger than the input");
    return [{ dtype, shape: [shape[0] as number, context.input(1).shape[0] as number, ...places] }];
  },
  gradient: (context) => {
    const [x, w, dy] = [context.input(0), context.input(1), context.gradient(0)];
    const window = windowOf(context.attributes, x.shape, w.shape);
    const group = context.attributes.number("group");
    return [
      context.needs(0) ? inputGradient(context, dy, window, group) : undefined,
      context.needs(1) ? kernelGradient(x, dy, window, group) : undefined,
      context.needs(2) ? sumOverPlaces(dy) : undefined,
    ];
  },
  flops: (context) => {
    const perElement = elementCount(context.input(1).shape.slice(1));
    return 2 * perElement * elementCount(context.outputs[0]?.shape ?? []);
  },
  inPlace: false,
  divisions: (context) => convDivisions(context, { from: 1, to: 0 }),
};

/** Sums over the batch and the spatial dims: the gradient of a bias per channel. */
export function sumOverPlaces(dy: Value): Value {
  const axes = dy.shape.map((_, dim) => dim).filter((dim) => dim !== 1);
  return reduceSum(dy, { axes, keepdims: false });
}

function checkedKernel(context: InferContext): Shape {
  const { x, w } = operandShapes(context, "M, C/group, sizes");
  const group = context.attributes.number("group");
  if (x[1] !== (w[1] as number) * group) {
    context.fail(`the input has ${x[1]} channels, the kernel expects ${w[1]} in ${group} groups`);
  }
  if ((w[0] as number) % group !== 0) {
    context.fail(`${w[0]} output channels do not divide into ${group} groups`);
  }
  checkBias(context, w[0] as number);
  return w;
}

function windowOf(attributes: AttributeReader, x: Shape, w: Shape): Window {
  return readWindow(attributes, x.slice(2), w.slice(2));
}

/**
 * Each output element passes its gradient back to the window that it read: a transposed
 * convolution.
 */
function inputGradient(context: GradientContext, dy: Value, window: Window, group: number): Value {
  const sizes = context.input(0).shape.slice(2);
  const rest = sizes.map((size, i) => {
    const places = (dy.shape[i + 2] as number) - 1;
    const reached = places * (window.strides[i] as number) + extent(window, i);
    return size + (window.before[i] as number) + (window.after[i] as number) - reached;
  });
  return context.builder.one("ConvTranspose", [dy, context.input(1)], {
    ...windowAttributes(window),
    group,
    output_padding: rest.some((size) => size > 0) ? rest : undefined,
  });
}
