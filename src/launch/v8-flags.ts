/** The flags of V8 with which processes of a run work. */
import { setFlagsFromString } from "node:v8";

/**
 * V8 compiles a function for speed later than it would: a process runs for seconds what it plans,
 * once, and compiling that took a third of the processor time of a start (`docs/lab.md`). Node.js 22
 * does not know the flag.
 */
const COMPILE_LATER =
  Number.parseInt(process.versions.node) < 22 ? ["--interrupt-budget=1000000"] : [];

/**
 * The space for new JavaScript objects has two halves of at most 4 MiB. A worker makes many objects
 * while it plans and few afterwards; with the default of Node.js (16) it would keep 24 MiB more for
 * the rest of the run. The second flag lets the space for old objects grow in small steps, so that
 * what planning leaves is collected; without it a worker keeps 20 to 30 MiB of that.
 */
export const WORKER_FLAGS: readonly string[] = [
  "--max-semi-space-size=4",
  "--optimize-for-size",
  ...COMPILE_LATER,
];

/** The same for this process, which runs already. */
export function compileLater(): void {
  for (const flag of COMPILE_LATER) setFlagsFromString(flag);
}
