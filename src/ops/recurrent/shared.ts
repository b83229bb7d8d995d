/** What LSTM, GRU and RNN have in common: attributes, sizes and types. */
import type {
  AttributeSpec,
  CostContext,
  Division,
  DivisionContext,
  InferContext,
} from "../../graph/index.ts";
import {
  elementCount,
  isFloat,
  type Shape,
  sameShape,
  type TensorType,
} from "../../tensor/index.ts";
import { along } from "../divisions.ts";
import { checkActivations } from "./activations.ts";

export const recurrentAttributes = {
  activation_alpha: { kind: "floats", default: null },
  activation_beta: { kind: "floats", default: null },
  activations: { kind: "strings", default: null },
  clip: { kind: "float", default: null },
  direction: { kind: "string", default: "forward" },
  hidden_size: { kind: "int", default: null },
} as const satisfies Record<string, AttributeSpec>;

/** The differences between kinds of recurrence that concern types. */
export interface RecurrentForm {
  /** The number of blocks of rows of the weights. */
  readonly gates: number;
  /** The number of functions of each direction. */
  readonly activations: number;
  /** Whether there is a state besides the hidden one (LSTM): inputs 6 and 7 and output 2. */
  readonly cell: boolean;
}

const DIRECTIONS = ["forward", "reverse", "bidirectional"];

/**
 * The types of Y (steps, directions, batch, hidden) and of the last states (directions, batch,
 * hidden).
 */
export function recurrentTypes(context: InferContext, form: RecurrentForm): TensorType[] {
  const { attributes } = context;
  const { dtype, shape } = context.input(0);
  const [steps, batch, inputs] = shape;
  const [, , hidden] = context.input(2).shape;
  if (!isFloat(dtype)) context.failType("takes floats");
  if (shape.length !== 3 || hidden === undefined) {
    return context.fail("takes an input (steps, batch, inputs) and weights of three dims");
  }
  const direction = attributes.string("direction");
  if (!DIRECTIONS.includes(direction)) context.fail(`the direction "${direction}" is not known`);
  const directions = direction === "bidirectional" ? 2 : 1;
  if (attributes.has("hidden_size") && attributes.number("hidden_size") !== hidden) {
    context.fail(`hidden_size ${attributes.number("hidden_size")} is not that of its weights`);
  }
  const rows = form.gates * hidden;
  const states: Shape = [directions, batch as number, hidden];
  const expected: readonly (Shape | undefined)[] = [
    undefined,
    [directions, rows, inputs as number],
    [directions, rows, hidden],
    [directions, 2 * rows],
    [batch as number],
    states,
    ...(form.cell ? [states, [directions, 3 * hidden]] : []),
  ];
  for (const [index, wanted] of expected.entries()) {
    const type = context.inputs[index];
    if (wanted === undefined || type === undefined) continue;
    if (type.dtype !== (index === 4 ? "int32" : dtype)) {
      context.failType(`input ${index} must be ${index === 4 ? "int32" : dtype}`);
    }
    if (!sameShape(type.shape, wanted)) {
      context.fail(`input ${index} must have the shape [${wanted.join(", ")}]`);
    }
  }
  checkActivations(context, form.activations * directions);
  const last = { dtype, shape: states };
  const y = { dtype, shape: [steps as number, ...states] };
  return form.cell ? [y, last, last] : [y, last];
}

/** The operations of both products of every step; those of the functions are negligible. */
export function recurrentFlops(context: CostContext): number {
  const [steps = 0, batch = 0] = context.input(0).shape;
  const weights = elementCount(context.input(1).shape) + elementCount(context.input(2).shape);
  return 2 * steps * batch * weights;
}

/** Samples do not depend on each other: X (steps, batch, inputs), lengths, and first states. */
export function bySample(context: DivisionContext): Division[] {
  const dims = [1, undefined, undefined, undefined, 0, 1, 1, undefined];
  return along(context, {
    inputs: context.inputs.map((type, index) => (type === undefined ? undefined : dims[index])),
    outputs: context.outputs.map((_, index) => (index === 0 ? 2 : 1)),
  });
}
