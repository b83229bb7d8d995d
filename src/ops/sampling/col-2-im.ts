import { concat, pad, reshape, slice } from "../../functional/index.ts";
import type {
  GradientContext,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount, type Shape, stridesOf } from "../../tensor/index.ts";
import { placesOf, readWindow, type Window } from "../convolution/index.ts";
import { along, linearDivisions } from "../divisions.ts";
import { floatType } from "../shared.ts";

/**
 * Puts windows (N, C · kernel, positions) back where they were cut from an image of the given sizes
 * (input 1), and adds them where they overlap. Input 2: the kernel.
 */
export const col2Im: OperatorDefinition = {
  name: "Col2Im",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: {
    dilations: { kind: "ints", default: null },
    pads: { kind: "ints", default: null },
    strides: { kind: "ints", default: null },
  },
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    const { sizes, window } = geometry(context);
    const elements = elementCount(window.kernel);
    const places = placesOf(window, sizes);
    const [batch, rows, count] = shape as [number, number, number];
    if (shape.length !== 3 || rows % elements !== 0 || count !== elementCount(places)) {
      context.fail(
        `takes windows (N, C · ${elements}, ${elementCount(places)}) for a picture of [${sizes.join(", ")}]`,
      );
    }
    return [{ dtype, shape: [batch, rows / elements, ...sizes] }];
  },
  gradient: (context) => {
    const { window } = geometry(context);
    return [cut(context.gradient(0), window), undefined, undefined];
  },
  flops: (context) => elementCount(context.input(0).shape),
  inPlace: false,
  divisions: (context) => [
    ...along(context, { inputs: [0, undefined, undefined], outputs: [0] }),
    // Channels: the rows of one channel lie together.
    ...along(context, { inputs: [1, undefined, undefined], outputs: [1] }),
    ...linearDivisions(context, "first"),
  ],
};

function geometry(context: InferContext | GradientContext): { sizes: Shape; window: Window } {
  const [sizes, kernel] = [context.constantNumbers(1), context.constantNumbers(2)];
  return { sizes, window: readWindow(context.attributes, sizes, kernel) };
}

/** The windows of an image (N, C, …sizes): (N, C · kernel, positions). */
function cut(picture: Value, window: Window): Value {
  const [batch, channels] = picture.shape as [number, number];
  const places = placesOf(window, picture.shape.slice(2));
  const padded = pad(picture, [0, 0, ...window.before], [0, 0, ...window.after]);
  const count = elementCount(places);
  const strides = stridesOf(window.kernel);
  const parts = Array.from({ length: elementCount(window.kernel) }, (_, index) => {
    const ranges = window.kernel.map((size, dim) => {
      const at = Math.floor(index / (strides[dim] as number)) % size;
      const start = at * (window.dilations[dim] as number);
      const step = window.strides[dim] as number;
      return { axis: dim + 2, start, end: start + ((places[dim] as number) - 1) * step + 1, step };
    });
    return reshape(slice(padded, ranges), [batch, channels, 1, count]);
  });
  return reshape(concat(parts, 2), [batch, channels * parts.length, count]);
}
