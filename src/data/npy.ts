/**
 * The header of NumPy's .npy files, versions 1 to 3.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
import { LockstepError } from "../errors.ts";
import { openRange, type RangeReader } from "../files/index.ts";
import { byteLength, type DType, type TensorType } from "../tensor/index.ts";

export interface NpyHeader extends TensorType {
  /** The offset in bytes at which the elements begin. */
  readonly dataOffset: number;
}

const MAGIC = "\x93NUMPY";
/** Far larger than any header of plain arrays. */
const MAX_HEADER_BYTES = 1 << 20;

const DTYPES: Readonly<Record<string, DType>> = {
  f8: "float64",
  f4: "float32",
  f2: "float16",
  i8: "int64",
  i4: "int32",
  i2: "int16",
  i1: "int8",
  u8: "uint64",
  u4: "uint32",
  u2: "uint16",
  u1: "uint8",
  b1: "bool",
};

/** Throws FILE_NOT_FOUND, FILE_CORRUPT, or DATA_FORMAT for valid arrays that are not supported. */
export async function readNpyHeader(path: string): Promise<NpyHeader> {
  const file = await openRange(path);
  try {
    return await readHeader(file, path);
  } finally {
    await file.close();
  }
}

async function readHeader(file: RangeReader, path: string): Promise<NpyHeader> {
  const start = Buffer.alloc(Math.min(12, file.byteLength));
  await file.read(0, start);
  if (start.length < 12 || start.toString("latin1", 0, 6) !== MAGIC)
    throw corrupt(path, "it does not begin with NumPy's mark");
  const wide = (start[6] as number) >= 2;
  const headerStart = wide ? 12 : 10;
  const length = wide ? start.readUInt32LE(8) : start.readUInt16LE(8);
  const dataOffset = headerStart + length;
  if (length > MAX_HEADER_BYTES || dataOffset > file.byteLength)
    throw corrupt(path, "its header is cut off");
  const header = Buffer.alloc(length);
  await file.read(headerStart, header);
  const type = parseHeader(header.toString("utf8"), path);
  const expected = dataOffset + byteLength(type);
  if (file.byteLength !== expected) {
    throw corrupt(path, `it should have ${expected} bytes, but has ${file.byteLength}`);
  }
  return { ...type, dataOffset };
}

/**
 * `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`: a Python literal, always of these
 * three keys.
 */
function parseHeader(header: string, path: string): TensorType {
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const sizes = /'shape'\s*:\s*\(([\d\s,L]*)\)/.exec(header)?.[1];
  if (order === undefined || sizes === undefined)
    throw corrupt(path, "its header does not say the shape");
  const dtype = descr === undefined ? undefined : DTYPES[descr.replace(/^[<|=]/, "")];
  if (dtype === undefined) {
    throw new LockstepError(
      "DATA_FORMAT",
      `"${path}" holds elements of the type ${descr ?? "of records"}, which is not understood.`,
      {
        hint: "Save it as plain little-endian numbers: array.astype('<f4').",
      },
    );
  }
  const shape = (sizes.match(/\d+/g) ?? []).map(Number);
  if (order === "True" && shape.length > 1) {
    throw new LockstepError("DATA_FORMAT", `"${path}" holds its array column by column.`, {
      hint: "Save numpy.ascontiguousarray(array), so that a sample lies in one piece.",
    });
  }
  if (!Number.isSafeInteger(byteLength({ dtype, shape })))
    throw corrupt(path, "its shape is absurd");
  return { dtype, shape };
}

function corrupt(path: string, what: string): LockstepError {
  return new LockstepError("FILE_CORRUPT", `"${path}" is not a whole .npy file: ${what}.`, {
    fields: { path },
  });
}
