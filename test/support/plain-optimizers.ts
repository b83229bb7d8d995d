/**
 * Lion, Adafactor and Muon as their papers and PyTorch write them: plain loops in float64, one
 * tensor at a time.
 */
import type { Shape } from "../../src/tensor/index.ts";

/** Returns the parameter after each step. */
export type PlainOptimizer = (
  start: readonly number[],
  shape: Shape,
  gradients: readonly (readonly number[])[],
) => number[][];

export function plainLion(options: {
  learningRate: number;
  betas: readonly [number, number];
  weightDecay: number;
}): PlainOptimizer {
  const { learningRate, betas, weightDecay } = options;
  return (start, _shape, gradients) => {
    const parameter = [...start];
    const moment = start.map(() => 0);
    return gradients.map((gradient) => {
      for (const [i, g] of gradient.entries()) {
        const m = moment[i] as number;
        const direction = Math.sign(betas[0] * m + (1 - betas[0]) * g);
        const p = parameter[i] as number;
        parameter[i] = p - learningRate * (direction + weightDecay * p);
        moment[i] = betas[1] * m + (1 - betas[1]) * g;
      }
      return [...parameter];
    });
  };
}

const rms = (values: readonly number[]) =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

export function plainAdafactor(options: {
  learningRate: number;
  beta2Decay: number;
  eps: readonly [number, number];
  d: number;
  weightDecay: number;
}): PlainOptimizer {
  const { learningRate, beta2Decay, eps, d, weightDecay } = options;
  return (start, shape, gradients) => {
    const parameter = [...start];
    const [rows, columns] = shape.length > 1 ? (shape as [number, number]) : [1, start.length];
    const rowVariance = new Array<number>(rows).fill(0);
    const columnVariance = new Array<number>(columns).fill(0);
    const variance = start.map(() => 0);
    return gradients.map((gradient, index) => {
      const step = index + 1;
      const fresh = step ** beta2Decay;
      const move = (list: number[], i: number, target: number) => {
        list[i] = (list[i] as number) + fresh * (target - (list[i] as number));
      };
      const alpha = Math.max(eps[1], rms(parameter)) * Math.min(learningRate, 1 / Math.sqrt(step));
      const at = (r: number, c: number) => gradient[r * columns + c] as number;
      const squares = (count: number, value: (i: number) => number) => {
        let sum = 0;
        for (let i = 0; i < count; i++) sum += value(i) ** 2;
        return sum / count;
      };
      if (shape.length > 1) {
        for (let r = 0; r < rows; r++)
          move(
            rowVariance,
            r,
            squares(columns, (c) => at(r, c)),
          );
        for (let c = 0; c < columns; c++)
          move(
            columnVariance,
            c,
            squares(rows, (r) => at(r, c)),
          );
        const mean = Math.max(rowVariance.reduce((a, b) => a + b, 0) / rows, eps[0]);
        for (let i = 0; i < variance.length; i++) {
          const [r, c] = [Math.floor(i / columns), i % columns];
          variance[i] = ((rowVariance[r] as number) * (columnVariance[c] as number)) / mean;
        }
      } else {
        for (const [i, g] of gradient.entries()) move(variance, i, g * g);
      }
      const update = gradient.map(
        (g, i) => g / Math.sqrt(Math.max(variance[i] as number, eps[0] ** 2)),
      );
      const size = alpha / Math.max(1, rms(update) / d);
      for (const [i, u] of update.entries()) {
        parameter[i] = (parameter[i] as number) * (1 - learningRate * weightDecay) - size * u;
      }
      return [...parameter];
    });
  };
}

type Matrix = number[][];

function product(a: Matrix, b: Matrix): Matrix {
  return a.map((row) =>
    (b[0] as number[]).map((_, c) =>
      row.reduce((sum, value, k) => sum + value * ((b[k] as number[])[c] as number), 0),
    ),
  );
}

function flipped(a: Matrix): Matrix {
  return (a[0] as number[]).map((_, c) => a.map((row) => row[c] as number));
}

export function plainMuon(options: {
  learningRate: number;
  momentum: number;
  nesterov: boolean;
  weightDecay: number;
  adjust: (rows: number, columns: number) => number;
}): PlainOptimizer {
  const { learningRate, momentum, nesterov, weightDecay, adjust } = options;
  return (start, shape, gradients) => {
    const [rows, columns] = shape as [number, number];
    const parameter = [...start];
    const buffer = start.map(() => 0);
    return gradients.map((gradient) => {
      for (const [i, g] of gradient.entries()) {
        buffer[i] = (buffer[i] as number) + (1 - momentum) * (g - (buffer[i] as number));
      }
      const direction = gradient.map((g, i) =>
        nesterov ? g + momentum * ((buffer[i] as number) - g) : (buffer[i] as number),
      );
      const matrix = Array.from({ length: rows }, (_, r) =>
        direction.slice(r * columns, (r + 1) * columns),
      );
      const orthogonal = plainNewtonSchulz(matrix).flat();
      for (const [i, u] of orthogonal.entries()) {
        const kept = (parameter[i] as number) * (1 - learningRate * weightDecay);
        parameter[i] = kept - learningRate * adjust(rows, columns) * u;
      }
      return [...parameter];
    });
  };
}

function plainNewtonSchulz(matrix: Matrix): Matrix {
  const tall = matrix.length > (matrix[0] as number[]).length;
  const wide = tall ? flipped(matrix) : matrix;
  const norm = Math.max(Math.hypot(...wide.flat()), 1e-7);
  let x = wide.map((row) => row.map((value) => value / norm));
  const [a, b, c] = [3.4445, -4.775, 2.0315];
  for (let step = 0; step < 5; step++) {
    const gram = product(x, flipped(x));
    const cubic = product(gram, gram);
    const polynomial = gram.map((row, i) =>
      row.map((value, j) => b * value + c * ((cubic[i] as number[])[j] as number)),
    );
    const moved = product(polynomial, x);
    x = x.map((row, i) => row.map((value, j) => a * value + ((moved[i] as number[])[j] as number)));
  }
  return tall ? flipped(x) : x;
}
