export { type FileContent, writeFileAtomic } from "./atomic.ts";
export { fileError } from "./errors.ts";
