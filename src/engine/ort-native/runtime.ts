/**
 * What exists once per process: ONNX Runtime's environment and its thread pool. The library allows
 * only one environment, so the first engine decides how many threads the pool has; a session that
 * needs another number gets threads of its own.
 */
import { assert } from "../../errors.ts";
import { type Handle, loadOrtApi, type OrtApi } from "./api.ts";
import { Arena } from "./arena.ts";

export interface Runtime {
  readonly api: OrtApi;
  readonly env: Handle;
  /** Describes CPU memory, for tensors at given addresses. */
  readonly memoryInfo: Handle;
  readonly poolThreads: number;
  /** Whether idle threads of the pool spin before they sleep. */
  readonly poolSpins: boolean;
  /** The memory of activations, which all sessions share. */
  readonly arena: Arena;
  readonly state: RuntimeState;
  release(): void;
}

export interface RuntimeState {
  /** False if another binding made the environment before us, without a pool. */
  poolUsable: boolean;
}

interface Shared extends Omit<Runtime, "release"> {
  users: number;
}

let shared: Shared | undefined;

const LOG_FATAL = 4; // errors are returned as statuses, so nothing is written to stderr
const ARENA_ALLOCATOR = 1;
const DEFAULT_MEMORY = 0;

/**
 * The process's runtime; it is made if it does not exist. The library cannot change while one is in
 * use.
 */
export function acquireRuntime(library: string, threads: number, spin: boolean): Runtime {
  // Otherwise, the library would record its use in the user's cache and upload it to its maker. It
  // reads this variable when it starts.
  process.env["ORT_DISABLE_TELEMETRY"] ??= "1";
  shared ??= createShared(loadOrtApi(library), threads, spin);
  assert(shared.api.path === library, `two ONNX Runtime libraries: ${shared.api.path}, ${library}`);
  const mine = shared;
  mine.users += 1;
  let released = false;
  return {
    api: mine.api,
    env: mine.env,
    memoryInfo: mine.memoryInfo,
    poolThreads: mine.poolThreads,
    poolSpins: mine.poolSpins,
    arena: mine.arena,
    state: mine.state,
    release() {
      if (released) return;
      released = true;
      mine.users -= 1;
      if (mine.users > 0) return;
      if (shared === mine) shared = undefined;
      mine.api.functions.releaseMemoryInfo(mine.memoryInfo);
      mine.api.functions.releaseEnv(mine.env);
    },
  };
}

function createShared(api: OrtApi, threads: number, spin: boolean): Shared {
  const { functions: f, check, made } = api;
  const doing = "starting";
  const threading = made<Handle>(doing, (out) => f.createThreadingOptions(out));
  try {
    check(f.setGlobalIntraOpNumThreads(threading, threads), doing);
    check(f.setGlobalInterOpNumThreads(threading, 1), doing);
    check(f.setGlobalSpinControl(threading, spin ? 1 : 0), doing);
    const env = made<Handle>(doing, (out) =>
      f.createEnvWithGlobalThreadPools(LOG_FATAL, "lockstep", threading, out),
    );
    check(f.disableTelemetryEvents(env), doing);
    const memoryInfo = made<Handle>(doing, (out) =>
      f.createCpuMemoryInfo(ARENA_ALLOCATOR, DEFAULT_MEMORY, out),
    );
    return {
      api,
      env,
      memoryInfo,
      poolThreads: threads,
      poolSpins: spin,
      arena: new Arena(api, env, memoryInfo),
      state: { poolUsable: true },
      users: 0,
    };
  } finally {
    f.releaseThreadingOptions(threading);
  }
}
