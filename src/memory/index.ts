export { type Address, type Library, loadLibrary, loadProgram } from "./ffi.ts";
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
export {
  handleOfNumbers,
  isAlive,
  isNamedFile,
  numbersOfHandle,
  pidNamespace,
  SHARED_FOLDER,
  sharedRoom,
} from "./named-files.ts";
export { loadSystemLibrary } from "./posix.ts";
