/**
 * Values of a file in the element type that a model asks for. This is decoding, not arithmetic: a batch is needed
 * before any graph can run. So this folder, and only it, walks over elements here; a batch costs microseconds.
 */
import {
  bfloat16ToFloat,
  DTYPES,
  type DType,
  float16ToFloat,
  floatToBfloat16,
  floatToFloat16,
} from "../tensor/index.ts";
import type { Fault } from "./check.ts";

/** `number`: a float64 read from text, which may feed integers if it is one. */
export type FieldType = DType | "number";

export interface Conversion {
  readonly from: FieldType;
  readonly to: DType;
  /** Integers become floats times this: 1/255 for pixels. Without meaning for an integer target. */
  readonly scale?: number | undefined;
}

/** Whether values of `from` can feed an input of type `to` and keep their meaning. */
export function convertible(from: FieldType, to: DType): boolean {
  if (from === "number" || from === to) return true;
  return DTYPES[to].kind === "float" || DTYPES[from].kind !== "float";
}

/** Fills `target` from `source`, both little endian, unless there is a number that the target's type cannot hold: the fault. */
export function convert(
  source: Uint8Array,
  target: Uint8Array,
  conversion: Conversion,
): Fault | undefined {
  const { from, to, scale } = conversion;
  const toFloat = DTYPES[to].kind === "float";
  if (from === to && (scale === undefined || !toFloat)) {
    target.set(source);
    return undefined;
  }
  const numbers = decode(aligned(source), from === "number" ? "float64" : from);
  if (toFloat) {
    if (scale !== undefined) {
      for (let i = 0; i < numbers.length; i++) numbers[i] = (numbers[i] as number) * scale;
    }
  } else {
    const fault = notHeld(numbers, to);
    if (fault !== undefined) return fault;
  }
  encode(numbers, target, to);
  return undefined;
}

/** Typed arrays need aligned memory; rows inside a file are often not. */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 8 === 0 ? bytes : Uint8Array.from(bytes);
}

function decode(bytes: Uint8Array, dtype: DType): Float64Array {
  const { buffer, byteOffset, byteLength } = bytes;
  const count = byteLength / DTYPES[dtype].bytes;
  switch (dtype) {
    case "int64":
      return Float64Array.from(new BigInt64Array(buffer, byteOffset, count), Number);
    case "uint64":
      return Float64Array.from(new BigUint64Array(buffer, byteOffset, count), Number);
    case "float16":
      return Float64Array.from(new Uint16Array(buffer, byteOffset, count), float16ToFloat);
    case "bfloat16":
      return Float64Array.from(new Uint16Array(buffer, byteOffset, count), bfloat16ToFloat);
    default:
      return Float64Array.from(new PLAIN[dtype](buffer as ArrayBuffer, byteOffset, count));
  }
}

function encode(numbers: Float64Array, target: Uint8Array, dtype: DType): void {
  const { buffer, byteOffset } = target;
  const count = numbers.length;
  switch (dtype) {
    case "int64":
      new BigInt64Array(buffer, byteOffset, count).set(
        BigInt64Array.from(Array.from(numbers, BigInt)),
      );
      return;
    case "uint64":
      new BigUint64Array(buffer, byteOffset, count).set(
        BigUint64Array.from(Array.from(numbers, BigInt)),
      );
      return;
    case "float16":
      new Uint16Array(buffer, byteOffset, count).set(Uint16Array.from(numbers, floatToFloat16));
      return;
    case "bfloat16":
      new Uint16Array(buffer, byteOffset, count).set(Uint16Array.from(numbers, floatToBfloat16));
      return;
    case "bool":
      target.set(Uint8Array.from(numbers, (value) => (value === 0 ? 0 : 1)));
      return;
    default:
      new PLAIN[dtype](buffer as ArrayBuffer, byteOffset, count).set(numbers);
  }
}

const PLAIN = {
  bool: Uint8Array,
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
  float64: Float64Array,
} as const;

/** The first number that an integer type cannot hold. Beyond 2^53 the numbers before and after are no longer told apart. */
function notHeld(numbers: Float64Array, to: DType): Fault | undefined {
  const { low, high } = limitsOf(to);
  const at = numbers.findIndex(
    (value) => !(Number.isInteger(value) && value >= low && value <= high),
  );
  if (at === -1) return undefined;
  const value = numbers[at] as number;
  const isLarge = Number.isInteger(value) && DTYPES[to].bytes === 8;
  const why = isLarge
    ? "and whole numbers beyond 2^53 are not exact here"
    : `which ${to} cannot hold`;
  return { at, value, why };
}

function limitsOf(to: DType): { low: number; high: number } {
  if (to === "bool") return { low: 0, high: 1 };
  const bits = DTYPES[to].bytes * 8;
  const unsigned = to.startsWith("uint");
  if (bits === 64) {
    return { low: unsigned ? 0 : Number.MIN_SAFE_INTEGER, high: Number.MAX_SAFE_INTEGER };
  }
  return unsigned
    ? { low: 0, high: 2 ** bits - 1 }
    : { low: -(2 ** (bits - 1)), high: 2 ** (bits - 1) - 1 };
}
