export type { Entry, Header } from "./format.ts";
export {
  parseSafetensors,
  readSafetensors,
  readSafetensorsHeader,
  type SafetensorsContent,
} from "./read.ts";
export {
  encodeSafetensors,
  type SafetensorsPieces,
  weightsSha256,
  writeSafetensors,
} from "./write.ts";
