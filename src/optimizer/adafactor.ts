/** Adafactor: the second moment of a matrix is kept as one row and one column. */
import { z } from "zod";
import { add, div, maximum, mul, reciprocal, reduceMean, sqrt, sub } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { checkOptions, finite, type OptionKinds, positive } from "../options.ts";
import type { DType } from "../tensor/index.ts";
import { forAll, type Rules, type UpdateContext, type Updated } from "./optimizer.ts";
import { COMMON_OPTIONS, type CommonOptions, checked, checkedCommon } from "./options.ts";

export interface AdafactorOptions extends CommonOptions {
  /**
   * The exponent of the decay: the second moment keeps `1 - step^beta2Decay` of itself. It is below
   * 0.
   */
  readonly beta2Decay?: number;
  /**
   * Two floors: one for the root of the second moment (default: the type's epsilon), and one for
   * the parameter's scale.
   */
  readonly eps?: readonly [number | undefined, number];
  /** Updates whose root mean square exceeds this are scaled down to it. */
  readonly clippingThreshold?: number;
}

const EPSILON: Partial<Record<DType, number>> = {
  float64: 2 ** -52,
  float32: 2 ** -23,
  float16: 2 ** -10,
  bfloat16: 2 ** -7,
};

/** Two numbers, of which the first may be omitted. */
const floors = z.tuple([z.number().nullish(), z.number()], {
  error: "It must be two numbers, of which the first may be undefined.",
});

const ADAFACTOR_OPTIONS: OptionKinds<AdafactorOptions> = {
  ...COMMON_OPTIONS,
  beta2Decay: finite.optional(),
  eps: floors.optional(),
  clippingThreshold: positive.optional(),
};

/** Throws INVALID_OPTION. */
export function adafactorRules(options: AdafactorOptions): Rules {
  checkOptions("adafactor", options, ADAFACTOR_OPTIONS);
  const [floor, scaleFloor] = options.eps ?? [undefined, 1e-3];
  const threshold = checked("adafactor", "clippingThreshold", options.clippingThreshold ?? 1, {
    from: Number.MIN_VALUE,
  });
  const beta2Decay = -checked("adafactor", "-beta2Decay", -(options.beta2Decay ?? -0.8), {
    from: Number.MIN_VALUE,
  });
  return forAll({
    name: "adafactor",
    granularity: "tensor",
    inPlace: false, // the step depends on the root mean square of the parameter
    ...checkedCommon("adafactor", options, { learningRate: 1e-2, weightDecay: 0 }),
    slots: [
      {
        name: "row_var",
        typeOf: ({ dtype, shape }) => ({
          dtype,
          shape: shape.length > 1 ? [...shape.slice(0, -1), 1] : shape,
        }),
      },
      {
        name: "col_var",
        // The second moment of a vector is not factored: this slot is a scalar that nothing reads.
        typeOf: ({ dtype, shape }) => ({
          dtype,
          shape: shape.length > 1 ? [...shape.slice(0, -2), 1, shape.at(-1) as number] : [],
        }),
      },
    ],
    scalars: ({ step, learningRate, gradientScale, weightDecay }) => ({
      gradientScale,
      relativeStep: Math.min(learningRate, 1 / Math.sqrt(step)),
      fresh: step ** beta2Decay,
      keep: 1 - learningRate * weightDecay,
    }),
    update: (context) => {
      const eps = floor ?? EPSILON[context.parameter.dtype] ?? 1e-7;
      return adafactorUpdate(context, eps, scaleFloor, threshold);
    },
  });
}

function adafactorUpdate(
  context: UpdateContext,
  eps: number,
  scaleFloor: number,
  threshold: number,
): Updated {
  const { parameter, decays } = context;
  const gradient = mul(context.gradient, context.scalar("gradientScale"));
  const stepSize = mul(
    maximum(rootMeanSquare(parameter), scaleFloor),
    context.scalar("relativeStep"),
  );
  const { variance, slots } = secondMoment(context, mul(gradient, gradient), eps);
  const update = mul(gradient, reciprocal(sqrt(maximum(variance, eps * eps))));
  const excess = maximum(div(rootMeanSquare(update), threshold), 1);
  const base = decays ? mul(parameter, context.scalar("keep")) : parameter;
  return { parameter: sub(base, mul(update, div(stepSize, excess))), slots };
}

function secondMoment(
  context: UpdateContext,
  squares: Value,
  eps: number,
): { variance: Value; slots: Record<string, Value> } {
  const fresh = context.scalar("fresh");
  const move = (slot: Value, target: Value) => add(slot, mul(sub(target, slot), fresh));
  const column = context.slot("col_var");
  if (squares.shape.length < 2) {
    const variance = move(context.slot("row_var"), squares);
    return { variance, slots: { row_var: variance, col_var: mul(column, 1) } };
  }
  const rows = move(context.slot("row_var"), reduceMean(squares, { axes: [-1] }));
  const columns = move(column, reduceMean(squares, { axes: [-2] }));
  const mean = maximum(reduceMean(rows, { axes: [-2] }), eps);
  return { variance: div(mul(rows, columns), mean), slots: { row_var: rows, col_var: columns } };
}

/** The root mean square, a scalar. */
function rootMeanSquare(x: Value): Value {
  return sqrt(reduceMean(mul(x, x), { keepdims: false }));
}
