/**
 * The checks of inputs that Conv and ConvTranspose have in common: x, a kernel, and maybe a bias.
 */
import type { InferContext } from "../../graph/index.ts";
import type { Shape } from "../../tensor/index.ts";

/** The shapes of x and of the kernel. `form` says in an error what the dims of the kernel are. */
export function operandShapes(context: InferContext, form: string): { x: Shape; w: Shape } {
  const [x, w, bias] = [context.input(0), context.input(1), context.inputs[2]];
  if ([w, bias].some((type) => type !== undefined && type.dtype !== x.dtype)) {
    context.failType("inputs must have one element type");
  }
  if (x.shape.length < 3 || w.shape.length !== x.shape.length) {
    context.fail(`takes an input (N, C, sizes) and a kernel (${form}) of equal rank`);
  }
  return { x: x.shape, w: w.shape };
}

/** Checks that a bias, if there is one, has one element for each channel of the result. */
export function checkBias(context: InferContext, channels: number): void {
  const bias = context.inputs[2];
  if (bias !== undefined && (bias.shape.length !== 1 || bias.shape[0] !== channels)) {
    context.fail(`the bias must have ${channels} elements`);
  }
}
