import { concat, mul, reduceProd as product, slice } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { dimsOf, keptGradient, reduction } from "./shared.ts";

/**
 * The product over the dims in input 1 (all, if it is omitted). Its gradient never divides, so it
 * and its own gradients are correct however many elements are zero.
 */
export const reduceProd = reduction({
  name: "ReduceProd",
  gradient: (context) => {
    // One dim after the other: the product over the first dims is the input of the next.
    const dims = dimsOf(context);
    const inputs = [context.input(0)];
    for (const dim of dims.slice(0, -1)) {
      inputs.push(product(inputs.at(-1) as Value, { axes: [dim] }));
    }
    return dims.reduceRight(
      (gradient, dim, index) => alongDim(inputs[index] as Value, gradient, dim),
      keptGradient(context),
    );
  },
  flops: 1,
  idempotent: true,
});

/**
 * The gradient of the product of x over one dim (dy has size 1 there), by halving: both halves are
 * multiplied element by element, and so on. It touches each element a constant number of times.
 */
function alongDim(x: Value, dy: Value, axis: number): Value {
  const size = x.shape[axis] as number;
  if (size === 1) return dy;
  const half = Math.floor(size / 2);
  const part = (from: Value, start: number, end: number) => slice(from, [{ axis, start, end }]);
  const [low, high] = [part(x, 0, half), part(x, half, 2 * half)];
  const rest = size % 2 === 1 ? [part(x, size - 1, size)] : [];
  const inner = alongDim(concat([mul(low, high), ...rest], axis), dy, axis);
  const shared = size % 2 === 1 ? part(inner, 0, half) : inner;
  const restGradient = size % 2 === 1 ? [part(inner, half, half + 1)] : [];
  return concat([mul(shared, high), mul(shared, low), ...restGradient], axis);
}
