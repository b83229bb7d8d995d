import { abs, equal, mul, pow, sign, where } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { exceptAlong } from "../divisions.ts";
import { transposeMaps } from "./axis-map.ts";
import { POOL_ATTRIBUTES, pooledType, poolWindow, spatialDims, windowTaps } from "./pool.ts";

/** The p-norm of each window of X (N, C, sizes). */
export const lpPool: OperatorDefinition = {
  name: "LpPool",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { ...POOL_ATTRIBUTES, p: { kind: "int", default: 2 } },
  infer: (context) => [pooledType(context)],
  // dx = sign(x) · |x|^(p−1) · Σ over windows of dy · y^(1−p). A window of zeros gets no gradient.
  gradient: (context) => {
    const [x, y, dy] = [context.input(0), context.output(0), context.gradient(0)];
    const p = context.attributes.number("p");
    const window = poolWindow(context.attributes, x.shape);
    const maps = window.kernel.map((_, i) => {
      const size = x.shape[i + 2] as number;
      const taps = windowTaps(window, i, size, y.shape[i + 2] as number).map(({ at }) =>
        at.map((position) => ({ at: position, weight: 1 })),
      );
      return { axis: i + 2, from: size, taps };
    });
    if (p === 1) return [mul(sign(x), transposeMaps(dy, maps))];
    const none = equal(y, 0);
    const share = where(none, 0, mul(dy, pow(where(none, 1, y), 1 - p)));
    const along = transposeMaps(share, maps);
    return [mul(p === 2 ? x : mul(sign(x), pow(abs(x), p - 1)), along)];
  },
  flops: (context) =>
    2 *
    elementCount(context.attributes.numbers("kernel_shape")) *
    elementCount(context.outputs[0]?.shape ?? []),
  inPlace: false,
  divisions: (context) => exceptAlong(context, spatialDims(context.input(0).shape)),
};
