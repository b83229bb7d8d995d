import type { sampling } from "../ops/sampling/index.ts";
import { elementCount } from "../tensor/index.ts";
import { type Kernel, ravel, unravel } from "./kernel.ts";
import { fill } from "./tensor.ts";

interface Tap {
  readonly at: number;
  readonly weight: number;
}

/** A coordinate outside of [0, size - 1], mirrored again and again until it lies within [low, high]. */
function mirror(x: number, low: number, high: number): number {
  if (low === high) return low;
  let at = x;
  while (at < low || at > high) at = at < low ? 2 * low - at : 2 * high - at;
  return at;
}

const gridSample: Kernel = ({ input, output, attributes }) => {
  const [x, grid] = [input(0), input(1)];
  const sizes = x.shape.slice(2);
  const isAligned = attributes.number("align_corners") === 1;
  const padding = attributes.string("padding_mode");
  const inside = (at: number, size: number): number => {
    if (padding === "zeros") return at;
    const back =
      padding === "border"
        ? at
        : isAligned
          ? mirror(at, 0, size - 1)
          : mirror(at, -0.5, size - 0.5);
    return Math.min(size - 1, Math.max(0, back));
  };
  const taps = (given: number, size: number): Tap[] => {
    const at = isAligned ? ((given + 1) / 2) * (size - 1) : ((given + 1) * size - 1) / 2;
    const mode = attributes.string("mode");
    if (mode === "cubic") {
      const low = Math.floor(at);
      return [-1, 0, 1, 2].map((i) => ({
        at: inside(low + i, size),
        weight: keys(Math.abs(at - low - i)),
      }));
    }
    const within = inside(at, size);
    if (mode === "nearest") return [{ at: roundToEven(within), weight: 1 }];
    const low = Math.floor(within);
    return [
      { at: low, weight: 1 - (within - low) },
      { at: low + 1, weight: within - low },
    ];
  };
  const { dtype, shape } = output(0);
  const value = (index: number): number => {
    const [n, c, ...place] = unravel(index, shape) as [number, number, ...number[]];
    const at = sizes.map((size, dim) => {
      const along = ravel([n, ...place, sizes.length - 1 - dim], grid.shape);
      return taps(grid.data[along] as number, size);
    });
    return weighted(at, (position) => {
      const isInside = position.every((p, i) => p >= 0 && p < (sizes[i] as number));
      return isInside ? (x.data[ravel([n, c, ...position], x.shape)] as number) : 0;
    });
  };
  return [fill(dtype, shape, value)];
};

/** Keys's kernel with a = -0.75 at a distance of up to 2. */
function keys(d: number): number {
  const a = -0.75;
  return d <= 1
    ? (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1
    : a * d ** 3 - 5 * a * d ** 2 + 8 * a * d - 4 * a;
}

function roundToEven(x: number): number {
  const low = Math.floor(x);
  const part = x - low;
  return part > 0.5 || (part === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/** Σ over all combinations of taps, one of each dim, of the product of weights and the element there. */
function weighted(taps: readonly Tap[][], read: (at: readonly number[]) => number): number {
  const counts = taps.map((own) => own.length);
  let sum = 0;
  for (let i = 0; i < elementCount(counts); i++) {
    const chosen = unravel(i, counts).map((tap, dim) => taps[dim]?.[tap] as Tap);
    const weight = chosen.reduce((product, tap) => product * tap.weight, 1);
    if (weight !== 0) sum += weight * read(chosen.map(({ at }) => at));
  }
  return sum;
}

export const samplingKernels: Record<keyof typeof sampling, Kernel> = {
  GridSample: gridSample,
};
