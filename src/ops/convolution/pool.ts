/** What pools answer alike. */
import type { AttributeReader, AttributeSpec, InferContext } from "../../graph/index.ts";
import type { Shape, TensorType } from "../../tensor/index.ts";
import { floatType } from "../shared.ts";
import { placesOf, readWindow, WINDOW_ATTRIBUTES, type Window } from "./window.ts";

export const POOL_ATTRIBUTES: Readonly<Record<string, AttributeSpec>> = {
  ...WINDOW_ATTRIBUTES,
  kernel_shape: { kind: "ints" },
  ceil_mode: { kind: "int", default: 0 },
};

export function poolWindow(attributes: AttributeReader, x: Shape): Window {
  return readWindow(attributes, x.slice(2), attributes.numbers("kernel_shape"));
}

/** The type of a pool's result: input 0 is (N, C, sizes). */
export function pooledType(context: InferContext): TensorType {
  const { dtype, shape } = floatType(context);
  const kernel = context.attributes.numbers("kernel_shape");
  if (shape.length < 3 || kernel.length !== shape.length - 2) {
    context.fail("takes an input (N, C, sizes) and a kernel size for each spatial dim");
  }
  const ceil = context.attributes.number("ceil_mode") === 1;
  const places = placesOf(poolWindow(context.attributes, shape), shape.slice(2), ceil);
  if (places.some((count) => count < 1)) context.fail("the window is larger than the input");
  return { dtype, shape: [...shape.slice(0, 2), ...places] };
}
