/** Reductions over dims. `axes` may count from the end; without axes, all dims are reduced. */
import type { Value } from "../graph/index.ts";
import { anything, checkOptions, flag, type OptionKinds } from "../options.ts";
import { abs, log, mul } from "./elementwise.ts";

export interface ReduceOptions {
  readonly axes?: readonly number[];
  /** Whether reduced dims are kept with size 1. Default: true. */
  readonly keepdims?: boolean;
}

/** The schemas of the options of reductions; axes are checked when types are inferred. */
const REDUCE_OPTIONS: OptionKinds<ReduceOptions> = {
  axes: anything.optional(),
  keepdims: flag.optional(),
};

/**
 * If no dims are reduced, nothing is summed: `alone` is what the operator then does to each
 * element.
 */
function reduce(
  op: string,
  x: Value,
  options: ReduceOptions,
  alone: (x: Value) => Value = (value) => value,
): Value {
  checkOptions(`r${op.slice(1)}`, options, REDUCE_OPTIONS);
  const { axes, keepdims = true } = options;
  if (axes?.length === 0) return alone(x);
  return x.builder.one(op, [x, axes && x.builder.ints(axes)], { keepdims });
}

export const reduceSum = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceSum", x, options);
export const reduceMean = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceMean", x, options);
/** The largest element. Several equal ones share the gradient evenly. */
export const reduceMax = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceMax", x, options);
/** The smallest element. Several equal ones share the gradient evenly. */
export const reduceMin = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceMin", x, options);
export const reduceProd = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceProd", x, options);
/** The sum of absolute values. */
export const reduceL1 = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceL1", x, options, abs);
/** The Euclidean norm. Its gradient is 0 where the norm is 0. */
export const reduceL2 = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceL2", x, options, abs);
export const reduceSumSquare = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceSumSquare", x, options, (value) => mul(value, value));
/** log Σ x. */
export const reduceLogSum = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceLogSum", x, options, log);
/** log Σ exp x, without overflow. */
export const reduceLogSumExp = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceLogSumExp", x, options);

/** The index (int64) of the largest element along `axis`; of several equal ones, the first. */
export const argMax = (x: Value, axis: number, keepdims = true): Value =>
  x.builder.one("ArgMax", [x], { axis, keepdims });
/** The index (int64) of the smallest element along `axis`; of several equal ones, the first. */
export const argMin = (x: Value, axis: number, keepdims = true): Value =>
  x.builder.one("ArgMin", [x], { axis, keepdims });
