/**
 * A physics-informed network (Raissi et al. 2019), which learns the solution of a differential
 * equation from the equation alone.
 */

import { backward } from "../../autodiff/index.ts";
import { LockstepError } from "../../errors.ts";
import { add, exp, mul, neg, reduceMean, reduceSum, sub } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import {
  callable,
  checkOptions,
  choice,
  counts,
  finite,
  group,
  type OptionKinds,
  positive,
} from "../../options.ts";
import { defineModel } from "../define.ts";
import type { Activation } from "../layers/activation.ts";
import type { ModelDefinition } from "../model.ts";
import { perceptron } from "./mlp.ts";

/** A point of the solution, with its derivatives by t; all are (batch, 1). */
export interface Point {
  readonly t: Value;
  readonly u: Value;
  readonly du: Value;
  readonly ddu: Value;
}

export interface PinnOptions {
  /** The equation, written so that it is 0 where it holds: `({ u, ddu }) => add(ddu, u)`. */
  readonly residual: (point: Point) => Value;
  /** u and its derivative at t = 0; the network satisfies them exactly. */
  readonly start: { readonly value: number; readonly slope: number };
  /** The known solution, which only measures the error; it is not used for training. */
  readonly solution?: (t: Value) => Value;
  /** The largest t. The network's input is t, scaled from [0, end] to [-1, 1]. Default: 1. */
  readonly end?: number;
  /** The widths of the hidden layers. Default: [32, 32]. */
  readonly hidden?: readonly number[];
  /** The activation, which must have a second derivative. Default: `tanh`. */
  readonly activation?: Exclude<Activation, "relu">;
}

/** The schemas of the options of pinn. */
const PINN_OPTIONS: OptionKinds<PinnOptions> = {
  residual: callable,
  start: group({ value: finite, slope: finite }),
  solution: callable.optional(),
  end: positive.optional(),
  hidden: counts.optional(),
  activation: choice("gelu", "gelu_tanh", "quick_gelu", "silu", "tanh", "sigmoid").optional(),
};

/**
 * u(t) = value + slope · t + (1 - e^-t)² · network(t), trained so that the mean square of the
 * residual vanishes. The derivatives by t come from differentiating the graph twice. Batch field:
 * `t` (batch, 1). Outputs: `loss`, `u` (batch, 1), and with a known solution `error`, the mean
 * square of the distance from it.
 */
export function pinn(options: PinnOptions): ModelDefinition {
  checkOptions("pinn", options, PINN_OPTIONS);
  const { start, solution, end = 1, hidden = [32, 32], activation = "tanh" } = options;
  if (!(end > 0)) {
    throw new LockstepError("INVALID_OPTION", `pinn: end is ${end}.`, {
      hint: "It must be above 0, the start.",
    });
  }
  return defineModel("pinn", (m) => {
    const t = m.input("t", [m.batch, 1]);
    const scaled = sub(mul(t, 2 / end), 1);
    const network = perceptron(m.child("network"), scaled, [...hidden, 1], { activation });
    const rise = sub(1, exp(neg(t)));
    const free = mul(mul(rise, rise), network);
    const u = add(add(mul(t, start.slope), start.value), free);
    const du = derivative(u, t);
    const ddu = derivative(du, t);
    const squares = (x: Value): Value => reduceMean(mul(x, x), { keepdims: false });
    const loss = squares(options.residual({ t, u, du, ddu }));
    if (solution === undefined) return { loss, u };
    return { loss, u, error: squares(sub(u, solution(t))) };
  });
}

/**
 * dy/dx, element by element, for y (batch, 1) whose samples depend only on their own x (batch, 1).
 * @throws LockstepError NO_GRADIENT for an operator without a gradient; INVALID_OPTION if y does
 * not depend on x.
 */
export function derivative(y: Value, x: Value): Value {
  const [gradient] = backward([reduceSum(y, { keepdims: false })], [x]);
  if (gradient !== undefined) return gradient;
  throw new LockstepError("INVALID_OPTION", `"${y.name}" does not depend on "${x.name}".`, {
    hint: "Differentiate by a value that it was computed from.",
  });
}
