/**
 * Tensors of the reference interpreter: all element types are float64 numbers (int64 is exact up to
 * 2^53).
 */
import {
  bfloat16ToFloat,
  type DType,
  elementCount,
  float16ToFloat,
  floatToBfloat16,
  floatToFloat16,
  type Shape,
  type Tensor,
  type TensorType,
  tensorFrom,
  toNumbers,
} from "../tensor/index.ts";

export interface ReferenceTensor extends TensorType {
  readonly data: Float64Array;
}

export function fromTensor(tensor: Tensor): ReferenceTensor {
  return { dtype: tensor.dtype, shape: tensor.shape, data: Float64Array.from(toNumbers(tensor)) };
}

export function toTensor(tensor: ReferenceTensor): Tensor {
  return tensorFrom(tensor.dtype, tensor.shape, tensor.data);
}

/** Makes a tensor from a function of the flat index. */
export function fill(
  dtype: DType,
  shape: Shape,
  value: (index: number) => number,
): ReferenceTensor {
  const data = new Float64Array(elementCount(shape));
  for (let i = 0; i < data.length; i++) data[i] = value(i);
  return { dtype, shape, data };
}

/** Rounds every element to the element type, as an engine that stores that type does. */
export function round(tensor: ReferenceTensor): ReferenceTensor {
  const { data } = tensor;
  const rounding = roundingOf(tensor.dtype);
  if (rounding !== undefined) {
    for (let i = 0; i < data.length; i++) data[i] = rounding(data[i] as number);
  }
  return tensor;
}

function roundingOf(dtype: DType): ((value: number) => number) | undefined {
  switch (dtype) {
    case "float32":
      return Math.fround;
    case "float16":
      return (value) => float16ToFloat(floatToFloat16(value));
    case "bfloat16":
      return (value) => bfloat16ToFloat(floatToBfloat16(value));
    case "bool":
      return (value) => (value === 0 ? 0 : 1);
    case "int8":
      return (value) => (Math.trunc(value) << 24) >> 24;
    case "int16":
      return (value) => (Math.trunc(value) << 16) >> 16;
    case "int32":
      return (value) => wrap(value, 32, true);
    case "uint8":
      return (value) => wrap(value, 8, false);
    case "uint16":
      return (value) => wrap(value, 16, false);
    case "uint32":
      return (value) => wrap(value, 32, false);
    case "float64":
      return undefined;
    // The result of x86 processors for numbers that do not fit a 64-bit integer.
    case "int64":
      return (value) => (Math.abs(value) <= 2 ** 63 ? Math.trunc(value) : -(2 ** 63));
    case "uint64":
      return (value) => (Math.abs(value) <= 2 ** 64 ? Math.trunc(value) : 2 ** 63);
  }
}

function wrap(value: number, bits: number, signed: boolean): number {
  if (!Number.isFinite(value)) return signed ? -(2 ** (bits - 1)) : 0;
  const modulus = 2 ** bits;
  const rest = ((Math.trunc(value) % modulus) + modulus) % modulus;
  return signed && rest >= modulus / 2 ? rest - modulus : rest;
}
