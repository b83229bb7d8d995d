/**
 * ONNX Runtime's C interface: a table of functions that only grows, so an index never changes. The
 * indices are positions in `struct OrtApi` of onnxruntime_c_api.h; only the functions that are used
 * here are listed.
 */
import koffi from "koffi";
import { LESS_MEMORY, LockstepError } from "../../errors.ts";
import { type Address, loadLibrary } from "../../memory/index.ts";

/** A handle of the library; 0 if there is none. */
export type Handle = Address;
/** An error of the library, which must be released, or null for success. */
export type Status = Address | null;
/** The place where a function stores its result. */
export type Out<T> = [T | null];

/** The requested version of the table: ONNX Runtime 1.20 and newer have it. */
const API_VERSION = 20;

/** Functions from this index on exist since ONNX Runtime 1.23 only. */
const FIRST_OF_23 = 285;

const HANDLE = "void *";
const OUT = "_Out_ void **";

const FUNCTIONS = {
  getErrorCode: [1, "int", [HANDLE]],
  getErrorMessage: [2, "const char *", [HANDLE]],
  createSessionFromArray: [8, HANDLE, [HANDLE, "const void *", "size_t", HANDLE, OUT]],
  run: [9, HANDLE, [HANDLE, HANDLE, HANDLE, HANDLE, "size_t", HANDLE, "size_t", HANDLE]],
  createSessionOptions: [10, HANDLE, [OUT]],
  setSessionExecutionMode: [13, HANDLE, [HANDLE, "int"]],
  enableProfiling: [14, HANDLE, [HANDLE, process.platform === "win32" ? "str16" : "str"]],
  disableMemPattern: [17, HANDLE, [HANDLE]],
  disableTelemetryEvents: [6, HANDLE, [HANDLE]],
  disableCpuMemArena: [19, HANDLE, [HANDLE]],
  setSessionGraphOptimizationLevel: [23, HANDLE, [HANDLE, "int"]],
  setIntraOpNumThreads: [24, HANDLE, [HANDLE, "int"]],
  setInterOpNumThreads: [25, HANDLE, [HANDLE, "int"]],
  sessionGetInputCount: [30, HANDLE, [HANDLE, "_Out_ size_t *"]],
  sessionGetOutputCount: [31, HANDLE, [HANDLE, "_Out_ size_t *"]],
  createRunOptions: [39, HANDLE, [OUT]],
  runOptionsSetTerminate: [46, HANDLE, [HANDLE]],
  runOptionsUnsetTerminate: [47, HANDLE, [HANDLE]],
  createTensorWithData: [
    49,
    HANDLE,
    [HANDLE, HANDLE, "size_t", "const int64_t *", "size_t", "int", OUT],
  ],
  createCpuMemoryInfo: [69, HANDLE, ["int", "int", OUT]],
  allocatorAlloc: [75, HANDLE, [HANDLE, "size_t", OUT]],
  allocatorFree: [76, HANDLE, [HANDLE, HANDLE]],
  releaseEnv: [92, "void", [HANDLE]],
  releaseStatus: [93, "void", [HANDLE]],
  releaseMemoryInfo: [94, "void", [HANDLE]],
  releaseSession: [95, "void", [HANDLE]],
  releaseValue: [96, "void", [HANDLE]],
  releaseRunOptions: [97, "void", [HANDLE]],
  releaseSessionOptions: [100, "void", [HANDLE]],
  createEnvWithGlobalThreadPools: [119, HANDLE, ["int", "str", HANDLE, OUT]],
  disablePerSessionThreads: [120, HANDLE, [HANDLE]],
  createThreadingOptions: [121, HANDLE, [OUT]],
  releaseThreadingOptions: [122, "void", [HANDLE]],
  addSessionConfigEntry: [130, HANDLE, [HANDLE, "str", "str"]],
  createAllocator: [131, HANDLE, [HANDLE, HANDLE, OUT]],
  releaseAllocator: [132, "void", [HANDLE]],
  createAndRegisterAllocator: [144, HANDLE, [HANDLE, HANDLE, HANDLE]],
  setGlobalIntraOpNumThreads: [147, HANDLE, [HANDLE, "int"]],
  setGlobalInterOpNumThreads: [148, HANDLE, [HANDLE, "int"]],
  setGlobalSpinControl: [149, HANDLE, [HANDLE, "int"]],
  releaseArenaCfg: [157, "void", [HANDLE]],
  createArenaCfgV2: [164, HANDLE, ["const char **", "const size_t *", "size_t", OUT]],
  // These exist from 1.23 on.
  getKeyValue: [297, "const char *", [HANDLE, "str"]],
  releaseKeyValuePairs: [300, "void", [HANDLE]],
  allocatorGetStats: [319, HANDLE, [HANDLE, OUT]],
} as const satisfies Record<string, readonly [number, string, readonly string[]]>;

type Async<F extends (...args: never) => unknown> = F & {
  async: (...args: [...Parameters<F>, (error: unknown, result: ReturnType<F>) => void]) => void;
};

export interface OrtFunctions {
  getErrorCode(status: Address): number;
  getErrorMessage(status: Address): string;
  readonly createSessionFromArray: Async<
    (env: Handle, model: Uint8Array, bytes: number, options: Handle, out: Out<Handle>) => Status
  >;
  /** Names and values are passed as addresses of arrays of pointers. */
  readonly run: Async<
    (
      session: Handle,
      options: Handle | null,
      inputNames: Address,
      inputs: Address,
      inputCount: number,
      outputNames: Address,
      outputCount: number,
      outputs: Address,
    ) => Status
  >;
  createSessionOptions(out: Out<Handle>): Status;
  setSessionExecutionMode(options: Handle, mode: number): Status;
  enableProfiling(options: Handle, prefix: string): Status;
  disableMemPattern(options: Handle): Status;
  disableTelemetryEvents(env: Handle): Status;
  disableCpuMemArena(options: Handle): Status;
  setSessionGraphOptimizationLevel(options: Handle, level: number): Status;
  setIntraOpNumThreads(options: Handle, threads: number): Status;
  setInterOpNumThreads(options: Handle, threads: number): Status;
  sessionGetInputCount(session: Handle, out: Out<number>): Status;
  sessionGetOutputCount(session: Handle, out: Out<number>): Status;
  createRunOptions(out: Out<Handle>): Status;
  runOptionsSetTerminate(options: Handle): Status;
  runOptionsUnsetTerminate(options: Handle): Status;
  createTensorWithData(
    memoryInfo: Handle,
    address: Address,
    bytes: number,
    shape: readonly number[],
    rank: number,
    type: number,
    out: Out<Handle>,
  ): Status;
  createCpuMemoryInfo(allocator: number, memory: number, out: Out<Handle>): Status;
  allocatorAlloc(allocator: Handle, byteLength: number, out: Out<Address>): Status;
  allocatorFree(allocator: Handle, address: Address): Status;
  releaseEnv(env: Handle): void;
  releaseStatus(status: Address): void;
  releaseMemoryInfo(info: Handle): void;
  releaseSession(session: Handle): void;
  releaseValue(value: Handle): void;
  releaseRunOptions(options: Handle): void;
  releaseSessionOptions(options: Handle): void;
  createEnvWithGlobalThreadPools(
    level: number,
    id: string,
    threading: Handle,
    out: Out<Handle>,
  ): Status;
  disablePerSessionThreads(options: Handle): Status;
  createThreadingOptions(out: Out<Handle>): Status;
  releaseThreadingOptions(options: Handle): void;
  addSessionConfigEntry(options: Handle, key: string, value: string): Status;
  createAllocator(session: Handle, memoryInfo: Handle, out: Out<Handle>): Status;
  releaseAllocator(allocator: Handle): void;
  /** Registers an allocator that all sessions with `session.use_env_allocators` share. */
  createAndRegisterAllocator(env: Handle, memoryInfo: Handle, arena: Handle): Status;
  setGlobalIntraOpNumThreads(threading: Handle, threads: number): Status;
  setGlobalInterOpNumThreads(threading: Handle, threads: number): Status;
  setGlobalSpinControl(threading: Handle, spin: number): Status;
  releaseArenaCfg(config: Handle): void;
  createArenaCfgV2(
    keys: readonly string[],
    values: readonly number[],
    count: number,
    out: Out<Handle>,
  ): Status;
  getKeyValue?(pairs: Handle, key: string): string | null;
  releaseKeyValuePairs?(pairs: Handle): void;
  allocatorGetStats?(allocator: Handle, out: Out<Handle>): Status;
}

/** The loaded library: its functions, and checks of their results. */
export interface OrtApi {
  readonly functions: OrtFunctions;
  /** `1.30.0` */
  readonly version: string;
  readonly path: string;
  /**
   * Throws ENGINE_FAILED with the library's message and releases the status, unless it means
   * success.
   */
  check(status: Status, doing: string): void;
  /** Returns what `make` stored in its argument, after checking its status. */
  made<T>(doing: string, make: (out: Out<T>) => Status): T;
}

const loaded = new Map<string, OrtApi>();

/** Loads the library at `path`, once per process. Throws ENGINE_LIBRARY. */
export function loadOrtApi(path: string): OrtApi {
  let api = loaded.get(path);
  if (api === undefined) {
    api = load(path);
    loaded.set(path, api);
  }
  return api;
}

function load(path: string): OrtApi {
  const library = loadLibrary(path);
  let base: Address | null;
  try {
    base = library.func<() => Address | null>("void *OrtGetApiBase()")();
  } catch (cause) {
    throw new LockstepError("ENGINE_LIBRARY", `${path} is not ONNX Runtime.`, {
      hint: "LOCKSTEP_ORT_LIBRARY must name libonnxruntime itself.",
      fields: { path },
      cause,
    });
  }
  const getApi = functionAt(base, 0, HANDLE, ["uint32_t"]) as (version: number) => Address | null;
  const getVersion = functionAt(base, 1, "const char *", []) as () => string;
  const table = getApi(API_VERSION);
  const version = getVersion();
  if (table === null) {
    throw new LockstepError("ENGINE_LIBRARY", `ONNX Runtime ${version} at ${path} is too old.`, {
      hint: `Version 1.${API_VERSION} or newer is needed.`,
      fields: { path, version },
    });
  }
  const minor = Number(version.split(".")[1]);
  const functions = Object.fromEntries(
    Object.entries(FUNCTIONS)
      .filter(([, [index]]) => index < FIRST_OF_23 || minor >= 23)
      .map(([name, [index, result, args]]) => [name, functionAt(table, index, result, args)]),
  ) as unknown as OrtFunctions;

  const check = (status: Status, doing: string): void => {
    if (status === null) return;
    const code = functions.getErrorCode(status);
    const words = functions.getErrorMessage(status);
    functions.releaseStatus(status);
    if (/bad[_ ]alloc|failed to allocate memory/i.test(words)) {
      throw new LockstepError("OUT_OF_MEMORY", `There was no memory left for ${doing}: ${words}`, {
        hint: LESS_MEMORY,
        fields: { engineCode: code },
      });
    }
    throw new LockstepError("ENGINE_FAILED", `ONNX Runtime failed while ${doing}: ${words}`, {
      fields: { engineCode: code },
    });
  };
  return {
    functions,
    version,
    path,
    check,
    made<T>(doing: string, make: (out: Out<T>) => Status): T {
      const out: Out<T> = [null];
      check(make(out), doing);
      return out[0] as T;
    },
  };
}

/** Entry `index` of a table of function pointers. */
function functionAt(
  table: Address | null,
  index: number,
  result: string,
  args: readonly string[],
): unknown {
  const pointer: unknown = koffi.decode(table, index * 8, "void *");
  return koffi.decode(pointer, koffi.proto(result, [...args]));
}
