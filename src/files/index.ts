export { type FileContent, syncFolder, writeFileAtomic } from "./atomic.ts";
export { fileError } from "./errors.ts";
export { makeFolder } from "./folder.ts";
export { addToHash } from "./hash.ts";
export { FilePool } from "./pool.ts";
export {
  openRange,
  type RangeReader,
  readFileWhole,
  readRange,
  readWhole,
  requireFile,
} from "./range.ts";
export { type FileWatch, watched, watchFiles } from "./waits.ts";
