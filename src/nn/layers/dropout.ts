/** Layers that draw: by keys of samples, so that a sample draws the same on any worker, in any micro-batch. */
import {
  add,
  cast,
  div,
  dropout as drop,
  foldIn,
  mul,
  randomBits,
  reduceSum,
  reshape,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { elementCount, tensorFrom } from "../../tensor/index.ts";
import type { Scope } from "../scope.ts";

/**
 * In `train` mode, sets a share `rate` of the elements of `x` (batch, …) to 0 and scales the others by 1/(1 - rate) (Srivastava et al. 2014);
 * in `eval` mode, `x` itself.
 */
export function dropout(scope: Scope, x: Value, rate: number): Value {
  if (!(rate >= 0 && rate < 1)) {
    scope.fail(`a dropout rate of ${rate}`, "Set it to at least 0 and less than 1.");
  }
  if (rate === 0 || scope.mode === "eval") return x;
  return scope.within(() => drop(x, rate, foldIn(scope.key, scope.nextStream())));
}

/** Like `dropout`, for attention weights (…heads, batch, queries, keys), each head with a mask of its own. */
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
 * Even in [0, 1), float32 of the shape of `ids` (batch, …); a row depends on the key of its sample. In `eval` mode it depends on the ids of
 * the row, so that it is the same every time, in any batch.
 */
export function uniformRows(scope: Scope, ids: Value): Value {
  const { shape } = ids;
  const [batch = 1, ...rest] = shape;
  const key = scope.mode === "train" ? scope.key : keyOfContent(ids);
  return scope.within(() => {
    const rows = reshape(foldIn(key, scope.nextStream()), [batch, 1]);
    const places = randomBits(scope.builder, [1, elementCount(rest)], 0);
    const bits = foldIn(add(rows, places), 0);
    return reshape(add(mul(cast(div(bits, 256), "float32"), 2 ** -24), 0.5), shape);
  });
}

/** A number for each row of ids (batch, …), int32: small factors, so that no sum is too large for it. */
function keyOfContent(ids: Value): Value {
  const [batch = 1, ...rest] = ids.shape;
  const count = elementCount(rest);
  const factors = Array.from({ length: count }, (_, place) => 1 + (place % 61));
  const { builder } = ids;
  const small = builder.one("Mod", [
    reshape(cast(ids, "int32"), [batch, count]),
    builder.scalar("int32", 251),
  ]);
  const weights = builder.constant(tensorFrom("int32", [count], factors));
  return reduceSum(mul(small, weights), { axes: [1], keepdims: false });
}
