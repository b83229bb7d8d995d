/**
 * The safetensors format of Hugging Face: eight bytes with the header's length, a JSON header, then
 * the tensors' bytes without a gap. This file turns headers into entries and back; it opens no
 * file.
 * Format: https://github.com/huggingface/safetensors (README, "Format").
 */
import { LockstepError } from "../errors.ts";
import { byteLength, type DType, formatType, type TensorType } from "../tensor/index.ts";

/** Where a tensor lies; offsets are relative to the start of the file. */
export interface Entry extends TensorType {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export interface Header {
  /** The entries in the order of the file. */
  readonly entries: readonly Entry[];
  readonly metadata: Readonly<Record<string, string>>;
}

export const LENGTH_BYTES = 8;

/** The largest header that Hugging Face's reader accepts. */
const MAX_HEADER_BYTES = 100_000_000;

/** The tensors' bytes begin at a multiple of this, so that a mapped file can be used in place. */
const ALIGNMENT = 64;

const METADATA = "__metadata__";

const NAMES: Readonly<Record<DType, string>> = {
  float64: "F64",
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint64: "U64",
  uint32: "U32",
  uint16: "U16",
  uint8: "U8",
  bool: "BOOL",
};

const DTYPE_OF = new Map((Object.keys(NAMES) as DType[]).map((dtype) => [NAMES[dtype], dtype]));

/** The bytes before the first tensor, and the tensors in the order in which their bytes follow. */
export function encodeHeader<T extends TensorType>(
  tensors: ReadonlyMap<string, T>,
  metadata: Readonly<Record<string, string>>,
): { bytes: Uint8Array; order: readonly (readonly [string, T])[] } {
  const named = [...tensors].sort(([a], [b]) => compareNames(a, b));
  // Tensors with larger elements come first, so that each tensor is aligned to its element; the
  // reference writer does the same.
  const sorted = named.sort(([, a], [, b]) => elementBytes(b) - elementBytes(a));
  const header: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) header.push([METADATA, metadata]);
  let offset = 0;
  for (const [name, tensor] of sorted) {
    if (name === METADATA) {
      throw new LockstepError("INVALID_OPTION", `A tensor cannot be named "${METADATA}".`);
    }
    const end = offset + byteLength(tensor);
    const { dtype, shape } = tensor;
    header.push([name, { dtype: NAMES[dtype], shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)), "utf8");
  const padded = Math.ceil((LENGTH_BYTES + json.length) / ALIGNMENT) * ALIGNMENT;
  const bytes = Buffer.alloc(padded, " ");
  bytes.writeBigUInt64LE(BigInt(padded - LENGTH_BYTES), 0);
  json.copy(bytes, LENGTH_BYTES);
  return { bytes, order: sorted };
}

function elementBytes(tensor: TensorType): number {
  return byteLength({ dtype: tensor.dtype, shape: [] });
}

/** Compares names by code units, which gives the same order on every machine. */
export function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The header's length in bytes, from the first eight bytes of a file of `fileBytes`. */
export function headerLength(first: Uint8Array, fileBytes: number, path: string): number {
  if (first.byteLength < LENGTH_BYTES) throw corrupt(path, `it has only ${fileBytes} bytes`);
  const view = new DataView(first.buffer, first.byteOffset, LENGTH_BYTES);
  const length = Number(view.getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES || LENGTH_BYTES + length > fileBytes) {
    throw corrupt(path, `its header would take ${length} bytes of ${fileBytes}`);
  }
  return length;
}

/** Checks everything that a header says against the size of the file. Throws FILE_CORRUPT. */
export function decodeHeader(json: Uint8Array, fileBytes: number, path: string): Header {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
  } catch (error) {
    throw corrupt(path, "its header is not JSON", error);
  }
  if (!isRecord(parsed)) throw corrupt(path, "its header is not an object");
  const dataStart = LENGTH_BYTES + json.byteLength;
  const entries = Object.entries(parsed)
    .filter(([name]) => name !== METADATA)
    .map(([name, value]) => decodeEntry(name, value, dataStart, path))
    .sort((a, b) => a.start - b.start || a.end - b.end);
  let at = dataStart;
  for (const { name, start, end } of entries) {
    if (start !== at)
      throw corrupt(path, `"${name}" does not begin where the tensor before it ends`);
    at = end;
  }
  if (at !== fileBytes) {
    throw corrupt(path, `its tensors end at byte ${at}, but the file has ${fileBytes}`);
  }
  return { entries, metadata: decodeMetadata(parsed[METADATA], path) };
}

function decodeEntry(name: string, value: unknown, dataStart: number, path: string): Entry {
  const bad = (what: string) => corrupt(path, `"${name}" ${what}`);
  if (!isRecord(value)) throw bad("is not described by an object");
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  const dtype = typeof dtypeName === "string" ? DTYPE_OF.get(dtypeName) : undefined;
  if (dtype === undefined)
    throw bad(`has the element type ${JSON.stringify(dtypeName)}, which is not understood`);
  if (!isSizes(shape)) throw bad("has no valid shape");
  if (!isSizes(offsets) || offsets.length !== 2) throw bad("has no valid offsets");
  const [start, end] = offsets as [number, number];
  const bytes = byteLength({ dtype, shape });
  if (end - start !== bytes) {
    throw bad(`is ${formatType({ dtype, shape })}, ${bytes} bytes, but has ${end - start}`);
  }
  return { name, dtype, shape, start: dataStart + start, end: dataStart + end };
}

function decodeMetadata(value: unknown, path: string): Record<string, string> {
  if (value === undefined) return {};
  if (!isRecord(value)) throw corrupt(path, "its metadata is not an object");
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") throw corrupt(path, `its metadata "${key}" is not a string`);
  }
  return value as Record<string, string>;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function corrupt(path: string, what: string, cause?: unknown): LockstepError {
  return new LockstepError("FILE_CORRUPT", `"${path}" is not a whole safetensors file: ${what}.`, {
    fields: { path },
    cause,
  });
}
