import type { AttributeReader, InferContext, OperatorDefinition } from "../../graph/index.ts";
import { elementCount, type Shape } from "../../tensor/index.ts";
import { floatType } from "../shared.ts";
import { sumOverPlaces } from "./conv.ts";
import { convDivisions } from "./conv-divisions.ts";
import { checkBias, operandShapes } from "./kernel.ts";
import { kernelGradient } from "./kernel-gradient.ts";
import { extent, readWindow, WINDOW_ATTRIBUTES, type Window, windowAttributes } from "./window.ts";

/**
 * The transposed convolution of X (N, C, …) with W (C, M/group, …) to (N, M, …); B (M) is added.
 */
export const convTranspose: OperatorDefinition = {
  name: "ConvTranspose",
  inputs: [2, 3],
  outputs: [1, 1],
  attributes: {
    ...WINDOW_ATTRIBUTES,
    group: { kind: "int", default: 1 },
    output_padding: { kind: "ints", default: null },
    output_shape: { kind: "ints", default: null },
  },
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    const kernel = checkedKernel(context);
    const { sizes } = geometry(context.attributes, shape, kernel);
    if (sizes.some((size) => size < 1)) context.fail("the pads are larger than the result");
    const channels = (kernel[1] as number) * context.attributes.number("group");
    return [{ dtype, shape: [shape[0] as number, channels, ...sizes] }];
  },
  gradient: (context) => {
    const [x, w, dy] = [context.input(0), context.input(1), context.gradient(0)];
    const { window } = geometry(context.attributes, x.shape, w.shape);
    const group = context.attributes.number("group");
    return [
      context.needs(0)
        ? context.builder.one("Conv", [dy, w], { ...windowAttributes(window), group })
        : undefined,
      context.needs(1) ? kernelGradient(dy, x, window, group) : undefined,
      context.needs(2) ? sumOverPlaces(dy) : undefined,
    ];
  },
  flops: (context) =>
    2 * elementCount(context.input(0).shape) * elementCount(context.input(1).shape.slice(1)),
  inPlace: false,
  divisions: (context) => convDivisions(context, { from: 0, to: 1 }),
};

function checkedKernel(context: InferContext): Shape {
  const { x, w } = operandShapes(context, "C, M/group, sizes");
  const group = context.attributes.number("group");
  if (x[1] !== w[0]) {
    context.fail(`the input has ${x[1]} channels, the kernel expects ${w[0]}`);
  }
  if ((x[1] as number) % group !== 0) {
    context.fail(`${x[1]} channels do not divide into ${group} groups`);
  }
  checkBias(context, (w[1] as number) * group);
  return w;
}

/**
 * The window of the convolution that this transposes, and the sizes of the result. The pads come
 * from `output_shape` or `auto_pad` if those are given (ONNX, operator ConvTranspose).
 */
function geometry(
  attributes: AttributeReader,
  x: Shape,
  w: Shape,
): { window: Window; sizes: number[] } {
  const places = x.slice(2);
  const mode = attributes.string("auto_pad");
  const window = readWindow(attributes, places, w.slice(2));
  const more = attributes.has("output_padding") ? attributes.numbers("output_padding") : [];
  const full = places.map(
    (count, i) => (count - 1) * (window.strides[i] as number) + extent(window, i) + (more[i] ?? 0),
  );
  const same = mode === "SAME_UPPER" || mode === "SAME_LOWER";
  if (!same && !attributes.has("output_shape")) {
    const cut = (i: number) => (window.before[i] as number) + (window.after[i] as number);
    return { window, sizes: full.map((size, i) => size - cut(i)) };
  }
  const sizes = attributes.has("output_shape")
    ? attributes.numbers("output_shape").slice(-places.length)
    : places.map((count, i) => count * (window.strides[i] as number));
  const totals = full.map((size, i) => Math.max(0, size - (sizes[i] as number)));
  const small = totals.map((total) => Math.floor(total / 2));
  const large = totals.map((total) => Math.ceil(total / 2));
  const [before, after] = mode === "SAME_UPPER" ? [small, large] : [large, small];
  return { window: { ...window, before, after }, sizes: [...sizes] };
}
