/**
 * Measures how long a run could not continue because other processes had the processors. A test of
 * "within a second" runs without waiting for a deadline; on a loaded machine it takes longer by the
 * time that it waits for a processor. Linux counts that time for each thread, in nanoseconds
 * (`schedstat`).
 */
import fs from "node:fs";

export interface Starvation {
  /**
   * Returns the milliseconds since the beginning, without those in which a thread of this process,
   * or of one below it, waited for a processor.
   */
  stop(): number;
}

const EVERY_MS = 10;

/** Starts the measurement. */
export function watchStarvation(): Starvation {
  const begun = performance.now();
  const waits: (readonly [from: number, to: number])[] = [];
  let known = waitsByThread();
  const look = () => {
    const now = performance.now();
    const next = waitsByThread();
    for (const [thread, waited] of next) {
      const more = waited - (known.get(thread) ?? waited);
      // Linux adds a wait when it is over.
      if (more > 0) waits.push([Math.max(begun, now - more), now]);
    }
    known = next;
  };
  const timer = setInterval(look, EVERY_MS);
  return {
    stop() {
      clearInterval(timer);
      look();
      return performance.now() - begun - unionOf(waits);
    },
  };
}

function unionOf(spans: readonly (readonly [number, number])[]): number {
  let [total, end] = [0, 0];
  for (const [from, to] of [...spans].sort((a, b) => a[0] - b[0])) {
    total += Math.max(0, to - Math.max(from, end));
    end = Math.max(end, to);
  }
  return total;
}

/**
 * Returns the milliseconds that each thread has waited for a processor, by its number; none if the
 * system does not tell.
 */
function waitsByThread(pid = process.pid, found = new Map<string, number>()): Map<string, number> {
  try {
    for (const thread of fs.readdirSync(`/proc/${pid}/task`)) {
      const [, waited = "0"] = read(`/proc/${pid}/task/${thread}/schedstat`).split(" ");
      found.set(thread, Number(waited) / 1e6);
      const children = read(`/proc/${pid}/task/${thread}/children`).trim();
      for (const child of children.split(" ")) {
        if (child !== "") waitsByThread(Number(child), found);
      }
    }
  } catch {
    return found; // the process has ended
  }
  return found;
}

function read(path: string): string {
  return fs.readFileSync(path, "utf8");
}
