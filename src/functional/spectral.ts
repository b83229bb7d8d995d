/** Fourier spectra. Complex numbers are a last dim of size 2: the real and the imaginary part. */
import type { Value } from "../graph/index.ts";
import { normalizeDim, tensorFrom } from "../tensor/index.ts";
import { add, mul } from "./elementwise.ts";
import { gather } from "./indexing.ts";
import { concat, flip, pad, range, reshape, slice, unsqueeze } from "./layout.ts";

export interface DftOptions {
  /** The dim that is transformed; it may count from the end. */
  readonly axis: number;
  /** The length to which the signal is cut or zero-padded. Default: its own length. */
  readonly length?: number;
  readonly inverse?: boolean;
  /** Whether only the first half of the spectrum of a real signal is returned. Default: false. */
  readonly onesided?: boolean;
}

/** The discrete Fourier transform of `x` (…, 1 or 2) along one dim: (…, 2). */
export function dft(x: Value, { axis, length, ...settings }: DftOptions): Value {
  const { builder } = x;
  const size = length === undefined ? undefined : builder.scalar("int64", length);
  return builder.one("DFT", [x, size, builder.scalar("int64", axis)], { ...settings });
}

/**
 * The real signal of `length` whose first half of the spectrum is `x` (…, 2), cut or zero-padded to
 * length / 2 + 1: (…, 1). The imaginary parts of frequencies without a counterpart are ignored.
 */
export function realFromHalf(x: Value, axis: number, length: number): Value {
  const dim = normalizeDim(axis, x.shape.length) as number;
  const bins = Math.floor(length / 2) + 1;
  const own = x.shape[dim] as number;
  const none = x.shape.map(() => 0);
  const half =
    own > bins
      ? slice(x, [{ axis: dim, start: 0, end: bins }])
      : pad(x, none, none.with(dim, bins - own));
  const mirrored = length - bins;
  const parts = [half];
  if (mirrored > 0) {
    const rest = flip(slice(half, [{ axis: dim, start: 1, end: mirrored + 1 }]), [dim]);
    parts.push(mul(rest, x.builder.constant(tensorFrom(x.dtype, [2], [1, -1]))));
  }
  const signal = dft(concat(parts, dim), { axis: dim, inverse: true });
  return slice(signal, [{ axis: -1, start: 0, end: 1 }]);
}

export interface StftOptions {
  /** The distance between the starts of neighbouring frames. */
  readonly step: number;
  /** The length of a frame. */
  readonly length: number;
  readonly onesided: boolean;
}

/**
 * The spectrum of each frame of a signal (batch, time, 1 or 2): (batch, frames, bins, 2).
 * @param window (length). Default: ones.
 */
export function stft(x: Value, window: Value | undefined, options: StftOptions): Value {
  const { step, length, onesided } = options;
  const { builder } = x;
  const [batch, time, parts] = x.shape as [number, number, number];
  const count = Math.floor((time - length) / step) + 1;
  const starts = reshape(range(builder, "int32", 0, count * step, step), [count, 1]);
  const signal = parts === 1 ? reshape(x, [batch, time]) : x;
  const frames = gather(signal, add(starts, range(builder, "int32", 0, length)), 1);
  const shaped = window && (parts === 1 ? window : reshape(window, [length, 1]));
  const weighted = shaped === undefined ? frames : mul(frames, shaped);
  return dft(parts === 1 ? unsqueeze(weighted, [-1]) : weighted, { axis: 2, onesided });
}
