/**
 * Keeps a process of a run alive where only its output fails, and ends a process that cannot
 * continue.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { loadSystemLibrary } from "../memory/index.ts";

/**
 * Ignores errors of stdout and stderr. A terminal that was closed, a full disk or a reader that has
 * gone affects only what is shown, not the run.
 */
export function outliveOutput(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
}

/**
 * Ends this process at once. `process.exit` is not used: the engine may be computing on another
 * thread, and the exit would free memory that it is using.
 */
export function endProcess(status: number): never {
  process.emit("exit", status); // removes the names of shared memory
  if (process.platform !== "win32")
    loadSystemLibrary().func<(n: number) => void>("void _exit(int)")(status);
  return process.exit(status);
}

const PR_SET_PDEATHSIG = 1;
const SIGKILL = 9;

/** Lets the system kill this process when its parent ends, also while it is stopped. */
export function endWithParent(): void {
  if (process.platform !== "linux") return;
  const prctl = loadSystemLibrary().func<(option: number, value: number) => number>(
    "int prctl(int option, unsigned long value)",
  );
  prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/**
 * Whether whoever started this process wants it to outlive its terminal, as `nohup` does. Node.js
 * forgets which signals were ignored before it started, but `nohup` leaves another trace: it
 * replaces the terminal's input by a /dev/null that cannot be read.
 */
export function outlivesTerminal(): boolean {
  if (process.platform !== "linux") return false;
  try {
    const ignored = /^SigIgn:\s*([0-9a-f]+)$/m.exec(
      readFileSync("/proc/self/status", "latin1"),
    )?.[1];
    if ((BigInt(`0x${ignored ?? "0"}`) & 1n) === 1n) return true;
    const flags = /^flags:\s*(\d+)$/m.exec(readFileSync("/proc/self/fdinfo/0", "latin1"))?.[1];
    const writeOnly = Number.parseInt(flags ?? "0", 8) % 4 === 1;
    return writeOnly && readlinkSync("/proc/self/fd/0") === "/dev/null";
  } catch {
    return false; // there is no /proc here
  }
}
