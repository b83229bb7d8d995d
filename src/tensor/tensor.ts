/**
 * A constant tensor on the JavaScript side: initial weights, constants of a graph, batches.
 * It refuses to compute: numeric work is a graph.
 */
import { assert } from "../errors.ts";
import { bytesPerElement, type DType } from "./dtype.ts";
import { bfloat16ToFloat, float16ToFloat, floatToBfloat16, floatToFloat16 } from "./half.ts";
import { elementCount, formatShape, type Shape, sameShape } from "./shape.ts";

export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
}

/**
 * The elements in row-major order, little endian. `bytes` may be a view of a file, or of memory
 * that other processes map.
 */
export interface Tensor extends TensorType {
  readonly bytes: Uint8Array;
  /**
   * The views, one after the other, of a tensor that lies in several places, such as the memory of
   * several processes.
   */
  readonly pieces?: () => Iterable<Uint8Array>;
}

/** A tensor's bytes, one piece after the other, without a copy. */
export function piecesOf(tensor: Tensor): Iterable<Uint8Array> {
  return tensor.pieces?.() ?? [tensor.bytes];
}

export function byteLength(type: TensorType): number {
  return elementCount(type.shape) * bytesPerElement(type.dtype);
}

export function sameType(a: TensorType, b: TensorType): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

export function formatType(type: TensorType): string {
  return `${type.dtype}${formatShape(type.shape)}`;
}

export function tensorFromBytes(dtype: DType, shape: Shape, bytes: Uint8Array): Tensor {
  assert(
    bytes.byteLength === byteLength({ dtype, shape }),
    `${formatType({ dtype, shape })} has ${bytes.byteLength} bytes`,
  );
  return { dtype, shape: [...shape], bytes };
}

/**
 * Makes a tensor from numbers (int64 beyond 2^53 needs `tensorFromBytes`). Half types are rounded
 * to nearest, ties to even.
 */
export function tensorFrom(dtype: DType, shape: Shape, values: ArrayLike<number>): Tensor {
  assert(
    values.length === elementCount(shape),
    `${values.length} values for ${formatShape(shape)}`,
  );
  const bytes = new Uint8Array(byteLength({ dtype, shape }));
  const write = writer(dtype, bytes);
  for (let i = 0; i < values.length; i++) write(i, values[i] as number);
  return { dtype, shape: [...shape], bytes };
}

/** The same numbers in another type, rounded to nearest. The tensor itself if it has that type. */
export function convertTensor(tensor: Tensor, dtype: DType): Tensor {
  const { shape } = tensor;
  if (tensor.dtype === dtype) return tensor;
  const bytes = new Uint8Array(byteLength({ dtype, shape }));
  const read = reader(tensor.dtype, tensor.bytes);
  const write = writer(dtype, bytes);
  const count = elementCount(shape);
  for (let i = 0; i < count; i++) write(i, read(i));
  return { dtype, shape: [...shape], bytes };
}

export function scalar(dtype: DType, value: number): Tensor {
  return tensorFrom(dtype, [], [value]);
}

/** The elements as numbers. Use it for small tensors: attributes, shapes, results in tests. */
export function toNumbers(tensor: Tensor): number[] {
  const read = reader(tensor.dtype, tensor.bytes);
  return Array.from({ length: elementCount(tensor.shape) }, (_, i) => read(i));
}

function writer(dtype: DType, bytes: Uint8Array): (index: number, value: number) => void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case "float32":
      return (i, v) => view.setFloat32(i * 4, v, true);
    case "float64":
      return (i, v) => view.setFloat64(i * 8, v, true);
    case "float16":
      return (i, v) => view.setUint16(i * 2, floatToFloat16(v), true);
    case "bfloat16":
      return (i, v) => view.setUint16(i * 2, floatToBfloat16(v), true);
    case "int8":
      return (i, v) => view.setInt8(i, v);
    case "uint8":
      return (i, v) => view.setUint8(i, v);
    case "bool":
      return (i, v) => view.setUint8(i, v === 0 ? 0 : 1);
    case "int16":
      return (i, v) => view.setInt16(i * 2, v, true);
    case "uint16":
      return (i, v) => view.setUint16(i * 2, v, true);
    case "int32":
      return (i, v) => view.setInt32(i * 4, v, true);
    case "uint32":
      return (i, v) => view.setUint32(i * 4, v, true);
    case "int64":
      return (i, v) => view.setBigInt64(i * 8, toInt64(v), true);
    case "uint64":
      return (i, v) => view.setBigUint64(i * 8, BigInt(Math.trunc(v)), true);
  }
}

const INT64_MAX = 2n ** 63n - 1n;

/**
 * Converts a number to int64. 2^63, which is how a double holds the largest int64, stands for that
 * integer ("to the end" in slices).
 */
function toInt64(value: number): bigint {
  return value >= 2 ** 63 ? INT64_MAX : BigInt(Math.trunc(value));
}

function reader(dtype: DType, bytes: Uint8Array): (index: number) => number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case "float32":
      return (i) => view.getFloat32(i * 4, true);
    case "float64":
      return (i) => view.getFloat64(i * 8, true);
    case "float16":
      return (i) => float16ToFloat(view.getUint16(i * 2, true));
    case "bfloat16":
      return (i) => bfloat16ToFloat(view.getUint16(i * 2, true));
    case "int8":
      return (i) => view.getInt8(i);
    case "uint8":
    case "bool":
      return (i) => view.getUint8(i);
    case "int16":
      return (i) => view.getInt16(i * 2, true);
    case "uint16":
      return (i) => view.getUint16(i * 2, true);
    case "int32":
      return (i) => view.getInt32(i * 4, true);
    case "uint32":
      return (i) => view.getUint32(i * 4, true);
    case "int64":
      return (i) => Number(view.getBigInt64(i * 8, true));
    case "uint64":
      return (i) => Number(view.getBigUint64(i * 8, true));
  }
}
