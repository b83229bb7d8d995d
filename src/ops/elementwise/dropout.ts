import { LockstepError } from "../../errors.ts";
import { cast, mul } from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition } from "../../graph/index.ts";
import { exceptAlong } from "../divisions.ts";
import { flopsPerElement } from "../shared.ts";
import { numberType } from "./shared.ts";

/**
 * ONNX's own dropout: the identity, unless input 2 (training mode) is true. In training mode the
 * engine draws numbers that no seed reproduces; models use `dropout` of the functional library,
 * which has a key.
 */
export const dropout: OperatorDefinition = {
  name: "Dropout",
  inputs: [1, 3],
  outputs: [1, 2],
  attributes: { seed: { kind: "int", default: null } },
  infer: (context) => {
    const x = numberType(context, false);
    return [x, { dtype: "bool", shape: x.shape }];
  },
  gradient: (context) => {
    const dy = context.gradient(0);
    if (!isTraining(context)) return [dy, undefined, undefined];
    // The mask comes from the engine's own draw, so the gradient matches that draw exactly.
    const rate = context.inputs[1] === undefined ? 0.5 : context.constantNumbers(1)[0];
    const keep = 1 - (rate as number);
    const mask = cast(context.output(1), dy.dtype);
    return [mul(mul(dy, 1 / keep), mask), undefined, undefined];
  },
  flops: flopsPerElement(),
  inPlace: false,
  // In training it draws numbers by their places in the whole tensor.
  divisions: (context) => {
    const mode = context.inputs[2] === undefined ? "off" : context.constant(2);
    const isOff = mode === "off" || mode?.bytes[0] === 0;
    return isOff ? exceptAlong(context, []) : [];
  },
};

function isTraining(context: GradientContext): boolean {
  if (context.inputs[2] === undefined) return false;
  const mode = context.constant(2);
  if (mode === undefined) {
    throw new LockstepError("NO_GRADIENT", "Dropout: its training mode must be a constant.", {
      hint: "Fix it when the model is exported, or use dropout(x, rate, key).",
    });
  }
  return mode.bytes[0] !== 0;
}
