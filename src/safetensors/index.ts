export { type Entry, encodeHeader, type Header } from "./format.ts";
export {
  eachTensor,
  parseSafetensors,
  readSafetensors,
  readSafetensorsHeader,
  type SafetensorsContent,
} from "./read.ts";
export {
  encodeSafetensors,
  hashBytes,
  type SafetensorsPieces,
  weightsSha256,
  writeSafetensors,
} from "./write.ts";
