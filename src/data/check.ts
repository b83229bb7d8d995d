/**
 * Looks through decoded values before anything is learned from them: floats must be finite, and what feeds an embedding or a
 * loss must be within its range. One pass over a batch, some tenths of a nanosecond an element.
 */
import {
  bfloat16ToFloat,
  DTYPES,
  type DType,
  float16ToFloat,
  formatRange,
  type ValueRange,
} from "../tensor/index.ts";
import type { FieldRange } from "./source.ts";

/** What is wrong with a value: its number among the elements looked at, and why it cannot be used. */
export interface Fault {
  readonly at: number;
  readonly value: number;
  /** Ends the sentence `field "x" holds VALUE, …`. */
  readonly why: string;
  readonly range?: ValueRange;
}

/** The first value that is not finite, or not in a range; `perSample` elements make a sample. */
export function findFault(
  bytes: Uint8Array,
  dtype: DType,
  perSample: number,
  ranges: readonly FieldRange[] = [],
): Fault | undefined {
  const found = DTYPES[dtype].kind === "float" ? findNotFinite(bytes, dtype) : undefined;
  if (found !== undefined) return found;
  if (ranges.length === 0) return undefined;
  const read = readerOf(bytes, dtype);
  for (const { range, places } of ranges) {
    const fault = outside(read, bytes.byteLength / DTYPES[dtype].bytes, perSample, range, places);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

function outside(
  read: (index: number) => number,
  count: number,
  perSample: number,
  range: ValueRange,
  places: readonly number[] | undefined,
): Fault | undefined {
  const { low, high, whole, except } = range;
  const isOutside = (value: number) =>
    !(value >= low && value <= high && (!whole || Number.isInteger(value))) && value !== except;
  const fault = (at: number): Fault => ({
    at,
    value: read(at),
    why: `but the model takes ${formatRange(range)}`,
    range,
  });
  if (places === undefined) {
    for (let at = 0; at < count; at++) if (isOutside(read(at))) return fault(at);
    return undefined;
  }
  for (let start = 0; start < count; start += perSample) {
    for (const place of places) if (isOutside(read(start + place))) return fault(start + place);
  }
  return undefined;
}

function readerOf(bytes: Uint8Array, dtype: DType): (index: number) => number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case "int64":
      return (i) => view.getInt32(8 * i + 4, true) * 2 ** 32 + view.getUint32(8 * i, true);
    case "uint64":
      return (i) => view.getUint32(8 * i + 4, true) * 2 ** 32 + view.getUint32(8 * i, true);
    case "int32":
      return (i) => view.getInt32(4 * i, true);
    case "uint32":
      return (i) => view.getUint32(4 * i, true);
    case "int16":
      return (i) => view.getInt16(2 * i, true);
    case "uint16":
      return (i) => view.getUint16(2 * i, true);
    case "int8":
      return (i) => view.getInt8(i);
    case "uint8":
    case "bool":
      return (i) => view.getUint8(i);
    case "float32":
      return (i) => view.getFloat32(4 * i, true);
    case "float64":
      return (i) => view.getFloat64(8 * i, true);
    case "float16":
    case "bfloat16":
      return (i) => halfNumber(view.getUint16(2 * i, true), dtype);
  }
}

function findNotFinite(bytes: Uint8Array, dtype: DType): Fault | undefined {
  const at = NOT_FINITE[dtype]?.(aligned(bytes, DTYPES[dtype].bytes)) ?? -1;
  if (at === -1) return undefined;
  return { at, value: readerOf(bytes, dtype)(at), why: "which is no finite number" };
}

function aligned(bytes: Uint8Array, to: number): Uint8Array {
  return bytes.byteOffset % to === 0 ? bytes : Uint8Array.from(bytes);
}

const NOT_FINITE: Partial<Record<DType, (bytes: Uint8Array) => number>> = {
  float32: ({ buffer, byteOffset, byteLength }) =>
    firstNotFinite(new Float32Array(buffer, byteOffset, byteLength / 4)),
  float64: ({ buffer, byteOffset, byteLength }) =>
    firstNotFinite(new Float64Array(buffer, byteOffset, byteLength / 8)),
  float16: (bytes) => firstMasked(bytes, 0x7c00),
  bfloat16: (bytes) => firstMasked(bytes, 0x7f80),
};

/** Zero times a number is zero unless the number is not finite: four sums let the processor overlap them. */
function firstNotFinite(values: Float32Array | Float64Array): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const { length } = values;
  let i = 0;
  for (; i + 3 < length; i += 4) {
    a += (values[i] as number) * 0;
    b += (values[i + 1] as number) * 0;
    c += (values[i + 2] as number) * 0;
    d += (values[i + 3] as number) * 0;
  }
  for (; i < length; i++) a += (values[i] as number) * 0;
  return a + b + c + d === 0 ? -1 : values.findIndex((value) => !Number.isFinite(value));
}

/** Halves with all bits of the exponent set are infinite or no number. */
function firstMasked({ buffer, byteOffset, byteLength }: Uint8Array, mask: number): number {
  const values = new Uint16Array(buffer, byteOffset, byteLength / 2);
  return values.findIndex((bits) => (bits & mask) === mask);
}

function halfNumber(bits: number, dtype: "float16" | "bfloat16"): number {
  return dtype === "float16" ? float16ToFloat(bits) : bfloat16ToFloat(bits);
}
