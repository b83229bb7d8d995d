export { type Address, type Library, loadLibrary, loadProgram } from "./ffi.ts";
export {
  type AllocateMemoryOptions,
  allocateMemory,
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
export { LARGEST_VIEW } from "./pages.ts";
export { loadSystemLibrary } from "./posix.ts";
