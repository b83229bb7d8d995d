export { type Address, type Library, loadLibrary } from "./ffi.ts";
export {
  type AllocateMemoryOptions,
  allocateMemory,
  LARGEST_VIEW,
  Memory,
  mapFile,
  openMemory,
  preferLargePages,
  uniqueName,
} from "./memory.ts";
export { loadSystemLibrary, pidNamespace } from "./posix.ts";
