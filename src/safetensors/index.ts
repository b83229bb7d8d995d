export type { Entry, Header } from "./format.ts";
export {
  parseSafetensors,
  readSafetensors,
  readSafetensorsHeader,
  type SafetensorsContent,
} from "./read.ts";
export { weightsSha256, writeSafetensors } from "./write.ts";
