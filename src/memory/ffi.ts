/**
 * Foreign functions: the one place that loads native libraries. Every call runs on a stack that
 * koffi owns, so its size is set here, before the first library is loaded.
 */
import koffi from "koffi";
import { LockstepError } from "../errors.ts";

/** An address in this process; zero is the null pointer. */
export type Address = bigint;

/**
 * Kernels of the engine keep packed panels of matrices on the stack; koffi's own 128 KiB for
 * asynchronous calls is not enough for them. Pages that are not touched cost nothing.
 */
const STACK_BYTES = 8 * 2 ** 20;

export interface Library {
  readonly path: string;
  /** A function by its C prototype, called on the JavaScript thread. */
  func<F>(prototype: string): F;
}

/**
 * Libraries stay loaded: koffi unloads a library when its handle is garbage-collected, although
 * functions that were reached through a table of pointers are still in use.
 */
const loaded = new Set<unknown>();

/**
 * Opens the symbols that this program itself exports: Node.js has OpenSSL's functions. Throws
 * ENGINE_LIBRARY.
 */
export function loadProgram(): Library {
  return load(null, "of this program");
}

/** Opens a native library, or throws ENGINE_LIBRARY with the loader's own words. */
export function loadLibrary(path: string): Library {
  return load(path, path);
}

function load(where: string | null, path: string): Library {
  configure();
  try {
    const library = koffi.load(where);
    loaded.add(library);
    return { path, func: <F>(prototype: string) => library.func(prototype) as unknown as F };
  } catch (cause) {
    throw new LockstepError(
      "ENGINE_LIBRARY",
      `The native library ${path} cannot be loaded: ${cause instanceof Error ? cause.message : String(cause)}`,
      { fields: { path }, cause },
    );
  }
}

function configure(): void {
  const { async_stack_size: present = 0 } = koffi.config();
  if (present >= STACK_BYTES) return;
  try {
    koffi.config({
      sync_stack_size: STACK_BYTES,
      async_stack_size: STACK_BYTES,
      max_async_calls: 4096,
    });
  } catch (cause) {
    throw new LockstepError(
      "ENGINE_LIBRARY",
      "Another module of this process used koffi first, and its stack is too small for the engine.",
      {
        hint: `Import lockstep before it, or set koffi.config({ async_stack_size: ${STACK_BYTES} }).`,
        cause,
      },
    );
  }
}
