export { bytesPerElement, DTYPES, type DType, dtypeFromOnnx, isFloat } from "./dtype.ts";
export { bfloat16ToFloat, float16ToFloat, floatToBfloat16, floatToFloat16 } from "./half.ts";
export { elementsOf, transpose } from "./move.ts";
export {
  broadcastShapes,
  elementCount,
  formatShape,
  normalizeDim,
  type Shape,
  sameShape,
  stridesOf,
} from "./shape.ts";
export {
  byteLength,
  convertTensor,
  formatType,
  piecesOf,
  sameType,
  scalar,
  type Tensor,
  type TensorType,
  tensorFrom,
  tensorFromBytes,
  toNumbers,
} from "./tensor.ts";
