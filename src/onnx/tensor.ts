/**
 * Converts `TensorProto` to `Tensor`: typed and raw data, with views instead of copies wherever the
 * layout allows it.
 */
import { assert, LockstepError } from "../errors.ts";
import {
  bytesPerElement,
  type DType,
  dtypeFromOnnx,
  formatType,
  type Tensor,
} from "../tensor/index.ts";
import type { RawTensor } from "./schema.ts";

/** Gives the bytes of a tensor that lies in a file of its own. */
export type ExternalReader = (tensor: RawTensor, byteLength: number) => Uint8Array;

const MAX_RANK = 64;
const MAX_BYTES = 2 ** 42;

/**
 * Decodes one tensor. `what` names it and its file.
 * @throws ONNX_UNSUPPORTED for unsupported element types; ONNX_PARSE if data and shape do not fit.
 */
export function decodeTensor(raw: RawTensor, what: string, external?: ExternalReader): Tensor {
  const dtype = dtypeFromOnnx(raw.dataType);
  if (dtype === undefined) {
    throw new LockstepError(
      "ONNX_UNSUPPORTED",
      `${what} has element type ${elementTypeName(raw.dataType)}, which is not supported.`,
      { hint: "Export the model with float32 weights and without quantization." },
    );
  }
  const wrong = (reason: string): never => {
    throw new LockstepError("ONNX_PARSE", `${what}: ${reason}.`);
  };
  if (raw.dims.length > MAX_RANK) wrong(`${raw.dims.length} dims`);
  let length = bytesPerElement(dtype);
  for (const size of raw.dims) {
    if (!Number.isSafeInteger(size) || size < 0) wrong(`a dim of size ${size}`);
    length *= size;
    if (length > MAX_BYTES) wrong(`shape [${raw.dims.join(", ")}] is too large`);
  }
  if (raw.segment !== undefined) wrong("it is stored in segments, which nothing writes any more");
  const bytes =
    raw.dataLocation === 1
      ? (external?.(raw, length) ?? wrong("its data is in another file, which is not at hand"))
      : ownBytes(raw, dtype, length, wrong);
  if (bytes.byteLength !== length) {
    const type = formatType({ dtype, shape: raw.dims });
    wrong(`${type} needs ${length} bytes, the file has ${bytes.byteLength}`);
  }
  return { dtype, shape: raw.dims, bytes };
}

function ownBytes(
  raw: RawTensor,
  dtype: DType,
  length: number,
  wrong: (reason: string) => never,
): Uint8Array {
  if (raw.rawData.byteLength > 0) {
    assert(raw.rawData instanceof Uint8Array, "what was read from a file is there in one piece");
    return raw.rawData;
  }
  switch (dtype) {
    case "float32":
      return raw.floatData;
    case "float64":
      return raw.doubleData;
    case "int64":
      return unpack(raw.int64Data, 8, length, wrong);
    case "uint64":
    case "uint32":
      return unpack(raw.uint64Data, bytesPerElement(dtype), length, wrong);
    case "int32":
    case "int16":
    case "int8":
    case "uint16":
    case "uint8":
    case "bool":
    case "float16":
    case "bfloat16":
      return unpack(raw.int32Data, bytesPerElement(dtype), length, wrong);
  }
}

/**
 * Converts varints to little-endian integers of `width` bytes. Every varint takes a byte or more,
 * which bounds the result.
 */
function unpack(
  varints: Uint8Array,
  width: number,
  length: number,
  wrong: (reason: string) => never,
): Uint8Array {
  if (length / width > varints.byteLength) wrong("its data is cut short");
  const bytes = new Uint8Array(length);
  let at = 0;
  let offset = 0;
  while (at < varints.byteLength) {
    let low = 0;
    let high = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= varints.byteLength || shift > 63) wrong("its data is cut short");
      const byte = varints[at++] as number;
      const bits = byte & 0x7f;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high |= bits >>> 4;
      } else high |= bits << (shift - 32);
      if (byte < 0x80) break;
    }
    if (offset + width > length) wrong("it has more data than its shape holds");
    for (let i = 0; i < width; i++) {
      bytes[offset + i] = (i < 4 ? low >>> (8 * i) : high >>> (8 * (i - 4))) & 0xff;
    }
    offset += width;
  }
  return offset === length ? bytes : wrong("its data is cut short");
}

const ELEMENT_TYPES: Readonly<Record<number, string>> = {
  0: "undefined",
  8: "string",
  14: "complex64",
  15: "complex128",
  17: "float8e4m3fn",
  18: "float8e4m3fnuz",
  19: "float8e5m2",
  20: "float8e5m2fnuz",
  21: "uint4",
  22: "int4",
  23: "float4e2m1",
  24: "float8e8m0",
};

export function elementTypeName(number: number): string {
  return dtypeFromOnnx(number) ?? ELEMENT_TYPES[number] ?? `number ${number}`;
}
