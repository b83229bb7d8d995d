/**
 * Sleeping until another process changes a word of shared memory: futexes on Linux, short sleeps
 * elsewhere.
 */
import { type Address, loadSystemLibrary } from "../../memory/index.ts";

export interface Sleeper {
  /**
   * Blocks this thread while the word at `address` is `expected`, for at most `timeoutMs`. It may
   * return early.
   */
  wait(address: Address, expected: number, timeoutMs: number): void;
  wakeAll(address: Address): void;
  /** Lets other threads run on this core. */
  yield(): void;
}

type Syscall = (
  number: number,
  address: Address,
  operation: number,
  value: number,
  timeout: Uint8Array | null,
  address2: null,
  value3: number,
) => number;

const FUTEX_WAIT = 0;
const FUTEX_WAKE = 1;
const EVERYONE = 0x7fffffff;
const NAP_MS = 0.05;

export function createSleeper(): Sleeper {
  const number = futexNumber();
  if (number === undefined) return napper();
  const syscall = loadSystemLibrary().func<Syscall>(
    "long syscall(long number, void *address, int operation, uint32_t value, void *timeout, void *address2, uint32_t value3)",
  );
  const schedYield = loadSystemLibrary().func<() => number>("int sched_yield()");
  const timeout = new Uint8Array(16);
  const timespec = new BigInt64Array(timeout.buffer);
  return {
    wait(address, expected, timeoutMs): void {
      const nanoseconds = BigInt(Math.max(1, Math.round(timeoutMs * 1e6)));
      timespec[0] = nanoseconds / 1_000_000_000n;
      timespec[1] = nanoseconds % 1_000_000_000n;
      syscall(number, address, FUTEX_WAIT, expected, timeout, null, 0);
    },
    wakeAll(address): void {
      syscall(number, address, FUTEX_WAKE, EVERYONE, null, null, 0);
    },
    yield: () => void schedYield(),
  };
}

function futexNumber(): number | undefined {
  if (process.platform !== "linux") return undefined;
  if (process.arch === "x64") return 202;
  return process.arch === "arm64" ? 98 : undefined;
}

function napper(): Sleeper {
  const never = new Int32Array(new SharedArrayBuffer(4));
  return {
    wait(_address, _expected, timeoutMs): void {
      Atomics.wait(never, 0, 0, Math.min(NAP_MS, timeoutMs));
    },
    wakeAll(): void {},
    yield(): void {},
  };
}
