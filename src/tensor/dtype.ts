/**
 * The element types: their names (those of ONNX, in lower case), their sizes, and their numbers in
 * ONNX files.
 */

export const DTYPES = {
  float32: { bytes: 4, onnx: 1, kind: "float" },
  uint8: { bytes: 1, onnx: 2, kind: "int" },
  int8: { bytes: 1, onnx: 3, kind: "int" },
  uint16: { bytes: 2, onnx: 4, kind: "int" },
  int16: { bytes: 2, onnx: 5, kind: "int" },
  int32: { bytes: 4, onnx: 6, kind: "int" },
  int64: { bytes: 8, onnx: 7, kind: "int" },
  bool: { bytes: 1, onnx: 9, kind: "bool" },
  float16: { bytes: 2, onnx: 10, kind: "float" },
  float64: { bytes: 8, onnx: 11, kind: "float" },
  uint32: { bytes: 4, onnx: 12, kind: "int" },
  uint64: { bytes: 8, onnx: 13, kind: "int" },
  bfloat16: { bytes: 2, onnx: 16, kind: "float" },
} as const satisfies Record<
  string,
  { bytes: number; onnx: number; kind: "float" | "int" | "bool" }
>;

export type DType = keyof typeof DTYPES;

/** Size of one element in bytes. */
export function bytesPerElement(dtype: DType): number {
  return DTYPES[dtype].bytes;
}

export function isFloat(dtype: DType): boolean {
  return DTYPES[dtype].kind === "float";
}

const byOnnxNumber = new Map<number, DType>(
  (Object.keys(DTYPES) as DType[]).map((dtype) => [DTYPES[dtype].onnx, dtype]),
);

/**
 * The element type with this number in `TensorProto.DataType`, or undefined (strings, complex, 4
 * bit).
 */
export function dtypeFromOnnx(number: number): DType | undefined {
  return byOnnxNumber.get(number);
}
