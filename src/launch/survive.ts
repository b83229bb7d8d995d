/** What must not end a process of a run, and how one ends that can go on no longer. */
import { readFileSync, readlinkSync } from "node:fs";
import { loadSystemLibrary } from "../memory/index.ts";

/** Output only shows: a terminal that was closed, a full disk or a reader that has gone take nothing away but what is shown. */
export function outliveOutput(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
}

/**
 * Ends this process at once. Not by `process.exit`: the engine may be in the middle of a run on another thread, and
 * what is torn down on the way out would be taken from under it.
 */
export function endProcess(status: number): never {
  process.emit("exit", status); // names of shared memory are taken away
  if (process.platform !== "win32")
    loadSystemLibrary().func<(n: number) => void>("void _exit(int)")(status);
  return process.exit(status);
}

/**
 * Whether whoever started this process wants it to outlive its terminal, as `nohup` does. Node.js forgets signals that were
 * ignored before it began; what `nohup` puts in the place of a terminal's input tells of it still: a /dev/null that cannot be read.
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
    return false; // no /proc here
  }
}
