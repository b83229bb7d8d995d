/**
 * Converts values of a file to the element type that a model asks for. This is decoding, not
 * arithmetic: a batch is needed before any graph can run. So this folder, and only it, loops over
 * elements here; a batch takes microseconds.
 */
import { LockstepError } from "../errors.ts";
import {
  bfloat16ToFloat,
  DTYPES,
  type DType,
  float16ToFloat,
  floatToBfloat16,
  floatToFloat16,
} from "../tensor/index.ts";

/**
 * A type of values. `number` is a float64 read from text; it may feed an integer input if it is an
 * integer.
 */
export type FieldType = DType | "number";

export interface Conversion {
  readonly from: FieldType;
  readonly to: DType;
  /**
   * The factor by which integers are multiplied for a float input: 1/255 for pixels. It has no
   * meaning for an integer target.
   */
  readonly scale?: number | undefined;
  /** The name of the values in errors: `field "label"`. */
  readonly what: string;
}

/** Whether values of `from` can feed an input of type `to` without changing their meaning. */
export function convertible(from: FieldType, to: DType): boolean {
  if (from === "number" || from === to) return true;
  return DTYPES[to].kind === "float" || DTYPES[from].kind !== "float";
}

/**
 * Fills `target` from `source`, both little endian. Throws DATA_FORMAT for a number that an integer
 * type cannot hold.
 */
export function convert(source: Uint8Array, target: Uint8Array, conversion: Conversion): void {
  const { from, to, scale } = conversion;
  const toFloat = DTYPES[to].kind === "float";
  if (from === to && (scale === undefined || !toFloat)) {
    target.set(source);
    return;
  }
  const numbers = decode(aligned(source), from === "number" ? "float64" : from);
  if (toFloat) {
    if (scale !== undefined) {
      for (let i = 0; i < numbers.length; i++) numbers[i] = (numbers[i] as number) * scale;
    }
  } else {
    checkIntegers(numbers, conversion);
  }
  encode(numbers, target, to);
}

/**
 * Copies bytes if they are not aligned: typed arrays need aligned memory, and rows inside a file
 * are often not.
 */
function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 8 === 0 ? bytes : Uint8Array.from(bytes);
}

/** The numbers as a view if JavaScript has a typed array of that type, otherwise as a copy. */
export function numbersIn(bytes: Uint8Array, dtype: DType): ArrayLike<number> {
  const { buffer, byteOffset, byteLength } = bytes;
  if (dtype !== "float32" && dtype !== "int32") return decode(aligned(bytes), dtype);
  return new PLAIN[dtype](buffer as ArrayBuffer, byteOffset, byteLength / DTYPES[dtype].bytes);
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

function checkIntegers(numbers: Float64Array, { to, what }: Conversion): void {
  const bits = to === "bool" ? 1 : DTYPES[to].bytes * 8;
  const unsigned = to === "bool" || to.startsWith("uint");
  // Numbers read from text are exact below 2^53.
  const low = Math.max(unsigned ? 0 : -(2 ** (bits - 1)), Number.MIN_SAFE_INTEGER);
  const high = Math.min(2 ** (unsigned ? bits : bits - 1) - 1, Number.MAX_SAFE_INTEGER);
  for (const value of numbers) {
    if (Number.isInteger(value) && value >= low && value <= high) continue;
    throw new LockstepError("DATA_FORMAT", `The ${what} holds ${value}, which ${to} cannot.`, {
      fields: { value, dtype: to },
    });
  }
}
