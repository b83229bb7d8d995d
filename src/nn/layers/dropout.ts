/**
 * Layers that draw random numbers by the keys of samples, so that a sample draws the same numbers
 * on any worker and in any micro-batch.
 */
import {
  add,
  cast,
  concat,
  div,
  dropout as drop,
  foldIn,
  mul,
  normalPairs,
  randomBits,
  reduceSum,
  reshape,
  slice,
  split,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { elementCount, type Shape, tensorFrom } from "../../tensor/index.ts";
import type { Scope } from "../scope.ts";

/**
 * In `train` mode, sets a fraction `rate` of the elements of `x` (batch, …) to 0 and scales the
 * others by 1/(1 - rate) (Srivastava et al. 2014); in `eval` mode, returns `x` itself.
 */
export function dropout(scope: Scope, x: Value, rate: number): Value {
  if (!(rate >= 0 && rate < 1)) {
    scope.fail(`a dropout rate of ${rate}`, "Set it to at least 0 and less than 1.");
  }
  if (rate === 0 || scope.mode === "eval") return x;
  return scope.within(() => drop(x, rate, foldIn(scope.key, scope.nextStream())));
}

/**
 * Applies dropout to attention weights (…heads, batch, queries, keys); each head has a mask of its
 * own.
 */
export function dropoutOfHeads(scope: Scope, x: Value, rate: number): Value {
  if (rate === 0 || scope.mode === "eval") return x;
  return scope.within(() => {
    const heads = elementCount(x.shape.slice(0, -3));
    const samples = reshape(foldIn(scope.key, scope.nextStream()), [1, scope.batch]);
    const numbers = randomBits(scope.builder, [heads, 1], 1);
    return drop(x, rate, reshape(add(numbers, samples), [heads * scope.batch]));
  });
}

/**
 * Uniform numbers in [0, 1), float32, of this shape, whose leading dim is the batch or a multiple
 * of it; the numbers of a sample depend on its key. In `eval` mode they are the same every time and
 * in any batch: they depend on the ids of the sample, if they are given (batch, …).
 */
export function uniformRows(scope: Scope, shape: Shape, ids?: Value): Value {
  const { batch } = scope;
  const key = scope.mode === "train" ? scope.key : keyOfContent(scope, ids);
  return scope.within(() => {
    const rows = reshape(foldIn(key, scope.nextStream()), [batch, 1]);
    const places = randomBits(scope.builder, [1, elementCount(shape) / batch], 0);
    const bits = foldIn(add(rows, places), 0);
    return reshape(add(mul(cast(div(bits, 256), "float32"), 2 ** -24), 0.5), shape);
  });
}

/**
 * A number for each sample, int32; its factors are small, so that no sum overflows. Without ids it
 * is the same for all.
 */
function keyOfContent({ batch, builder }: Scope, ids: Value | undefined): Value {
  if (ids === undefined) {
    return builder.constant(tensorFrom("int32", [batch], new Array<number>(batch).fill(0)));
  }
  const count = elementCount(ids.shape) / batch;
  const factors = Array.from({ length: count }, (_, place) => 1 + (place % 61));
  const flat = reshape(cast(ids, "int32"), [batch, count]);
  const small = builder.one("Mod", [flat, builder.scalar("int32", 251)]);
  const weights = builder.constant(tensorFrom("int32", [count], factors));
  return reduceSum(mul(small, weights), { axes: [1], keepdims: false });
}

/**
 * Normally distributed numbers of mean 0 and deviation 1, float32, drawn for each sample like those
 * of `uniformRows`.
 */
export function normalRows(scope: Scope, shape: Shape): Value {
  const each = elementCount(shape) / scope.batch;
  const pairs = Math.ceil(each / 2);
  const unit = uniformRows(scope, [scope.batch, 2 * pairs]);
  return scope.within(() => {
    const [first, second] = split(unit, [pairs, pairs], 1) as [Value, Value];
    const both = concat(normalPairs(first, second), 1);
    return reshape(slice(both, [{ axis: 1, start: 0, end: each }]), shape);
  });
}
