/** Reductions over dims. `axes` may count from the end; without axes, over all dims. */
import type { Value } from "../graph/index.ts";

export interface ReduceOptions {
  readonly axes?: readonly number[];
  /** Keep reduced dims with size 1. Default: true. */
  readonly keepdims?: boolean;
}

function reduce(op: string, x: Value, { axes, keepdims = true }: ReduceOptions): Value {
  if (axes?.length === 0) return x;
  return x.builder.one(op, [x, axes && x.builder.ints(axes)], { keepdims });
}

export const reduceSum = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceSum", x, options);
export const reduceMean = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceMean", x, options);
export const reduceMax = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceMax", x, options);
export const reduceMin = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceMin", x, options);
export const reduceProd = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceProd", x, options);
export const reduceL2 = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceL2", x, options);
export const reduceSumSquare = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceSumSquare", x, options);
export const reduceLogSumExp = (x: Value, options: ReduceOptions = {}): Value =>
  reduce("ReduceLogSumExp", x, options);
