/** Products, normalizations and convolutions: the heavy operators of neural networks. */
import type { Value } from "../graph/index.ts";
import { anything, checkOptions, finite, flag, type OptionKinds } from "../options.ts";
import { elementCount, sameShape } from "../tensor/index.ts";
import { add } from "./elementwise.ts";
import { reshape, swapLast } from "./layout.ts";

const MATMUL_OPTIONS = { transB: flag.optional() };

/**
 * Matrix product over the last two dims; leading dims broadcast. With `transB`, b is (…, columns,
 * inner). Several equal leading dims are then merged into one: ONNX Runtime would otherwise merge
 * the transposition with an earlier one, which is slower than a product that transposes by itself.
 */
export function matmul(a: Value, b: Value, options: { transB?: boolean } = {}): Value {
  checkOptions("matmul", options, MATMUL_OPTIONS);
  const { transB = false } = options;
  if (!transB && a.shape.length > 1 && b.shape.length === 2 && b.shape[1] === 1) {
    const inner = a.shape.at(-1) as number;
    const rows = reshape(a, [elementCount(a.shape) / inner, inner]);
    return reshape(gemm(rows, b), [...a.shape.slice(0, -1), 1]); // see gemm: one column
  }
  if (!transB) return a.builder.one("MatMul", [a, b]);
  const batch = a.shape.slice(0, -2);
  if (!sameShape(batch, b.shape.slice(0, -2)) || batch.length === 0) {
    return matmul(a, swapLast(b));
  }
  const product = matmul(oneBatch(a), swapLast(oneBatch(b)));
  return reshape(product, [...batch, a.shape.at(-2) as number, b.shape.at(-2) as number]);
}

/** Merges the leading dims of matrices into one batch dim: (…, m, n) → (count, m, n). */
export function oneBatch(x: Value): Value {
  const count = elementCount(x.shape.slice(0, -2));
  return reshape(x, [count, ...x.shape.slice(-2)]);
}

/** Einstein's sum: `einsum("bij,bjk->bik", a, b)`. */
export function einsum(equation: string, ...operands: readonly [Value, ...Value[]]): Value {
  return operands[0].builder.one("Einsum", operands, { equation });
}

export interface GemmOptions {
  readonly alpha?: number;
  readonly beta?: number;
  readonly transA?: boolean;
  readonly transB?: boolean;
}

/** The schemas of the options of `gemm`. */
const GEMM_OPTIONS: OptionKinds<GemmOptions> = {
  alpha: finite.optional(),
  beta: finite.optional(),
  transA: flag.optional(),
  transB: flag.optional(),
};

/**
 * alpha · op(a) · op(b) + beta · c of matrices; `c` broadcasts. A result with one column is
 * computed as one row, because ONNX Runtime's product with a single column gives different last
 * bits on one thread and on two.
 */
export function gemm(a: Value, b: Value, c?: Value, options: GemmOptions = {}): Value {
  checkOptions("gemm", options, GEMM_OPTIONS);
  const { transA = false, transB = false } = options;
  const [rows, columns] = [a.shape[transA ? 1 : 0] as number, b.shape[transB ? 0 : 1] as number];
  if (columns === 1 && rows > 1 && c === undefined) {
    const column = reshape(b, [1, elementCount(b.shape)]);
    const row = gemm(column, a, undefined, { ...options, transA: false, transB: !transA });
    return reshape(row, [rows, 1]);
  }
  return a.builder.one("Gemm", c === undefined ? [a, b] : [a, b, c], { ...options });
}

/**
 * x · weight + bias over the last dim of `x` (…, inputs); `weight` is (inputs, outputs), `bias`
 * (outputs). It is a single product over all leading dims.
 */
export function linear(x: Value, weight: Value, bias?: Value): Value {
  const inner = x.shape.at(-1) ?? 1;
  const rows = reshape(x, [elementCount(x.shape) / inner, inner]);
  // Gemm's own C is not used: it is first copied to every row and then read again (10% slower for
  // wide results).
  const product = gemm(rows, weight);
  const shifted = bias === undefined ? product : add(product, bias);
  return reshape(shifted, [...x.shape.slice(0, -1), weight.shape[1] as number]);
}

export const softmax = (x: Value, axis = -1): Value => x.builder.one("Softmax", [x], { axis });

export const logSoftmax = (x: Value, axis = -1): Value =>
  x.builder.one("LogSoftmax", [x], { axis });

export interface NormalizationOptions {
  /** Normalizes over this dim and all after it. Default: the last. */
  readonly axis?: number;
  /** Added to the variance. Default: 1e-5. */
  readonly epsilon?: number;
}

/** The schemas of the options of normalizations. */
const NORMALIZATION_OPTIONS: OptionKinds<NormalizationOptions> = {
  axis: anything.optional(),
  epsilon: finite.optional(),
};

/** (x − mean) / √(variance + epsilon) · scale + bias over the dims from `axis` on. */
export function layerNormalization(
  x: Value,
  scale: Value,
  bias?: Value,
  options: NormalizationOptions = {},
): Value {
  checkOptions("layerNormalization", options, NORMALIZATION_OPTIONS);
  const inputs = bias === undefined ? [x, scale] : [x, scale, bias];
  return x.builder.one("LayerNormalization", inputs, { ...options });
}

/** x / √(mean of squares + epsilon) · scale over the dims from `axis` on. */
export function rmsNormalization(
  x: Value,
  scale: Value,
  options: NormalizationOptions = {},
): Value {
  checkOptions("rmsNormalization", options, NORMALIZATION_OPTIONS);
  return x.builder.one("RMSNormalization", [x, scale], { ...options });
}
