/** The identity of a process: its id may be reused, so its start time belongs to it. */
import fs from "node:fs";
import type { Control } from "./control.ts";

export interface ProcessIdentity {
  readonly pid: number;
  /** The start in ticks since boot; 0 if the system does not tell. */
  readonly start: number;
}

export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, start: statusOf(process.pid)?.start ?? 0 };
}

/** Whether this process is running. A zombie is not. */
export function isAlive(identity: ProcessIdentity): boolean {
  return lookAt(identity) !== "ended";
}

/** What the system says about a process. `ticks` is the processor time that it has used. */
export interface Look {
  readonly state: string;
  readonly ticks: number;
}

function lookAt({ pid, start }: ProcessIdentity): Look | "ended" | "unknown" {
  if (start !== 0) {
    const status = statusOf(pid);
    if (status === undefined || status.start !== start || "ZXx".includes(status.state)) {
      return "ended";
    }
    return status;
  }
  if (pid === process.pid) return "unknown";
  try {
    process.kill(pid, 0);
    return "unknown";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH" ? "ended" : "unknown";
  }
}

/**
 * The most milliseconds that count between two observations, because the observer may have been
 * stopped itself.
 */
const MAX_GAP_MS = 1000;
/**
 * A process that is not stopped may wait for a disk or be in a debugger, so it gets this many times
 * the limit.
 */
const QUIET_FACTOR = 3;
/**
 * Where the system does not tell the processor time, only the beats of the event loop count, and
 * long computations delay them.
 */
const UNKNOWN_FACTOR = 12;

/**
 * Watches a process of this machine that others wait for: whether it has ended, and whether it
 * makes progress. A process that computes uses processor time, and one that waits beats, so slow
 * processes are never taken for stopped ones.
 */
export class Heart {
  readonly #identity: ProcessIdentity;
  readonly #silenceMs: number;
  #lookedAt: number | undefined;
  #quietMs = 0;
  #signs = "";

  constructor(identity: ProcessIdentity, silenceMs: number) {
    this.#identity = identity;
    this.#silenceMs = silenceMs;
  }

  /**
   * Returns what is wrong with the process, as in "its process 12 has ended"; undefined while it
   * lives. `beat` is the process's own counter.
   */
  trouble(beat: number, now: number): string | undefined {
    const { pid } = this.#identity;
    if (pid === process.pid) return undefined;
    const look = lookAt(this.#identity);
    if (look === "ended") return `its process ${pid} has ended`;
    const gap = Math.min(MAX_GAP_MS, now - (this.#lookedAt ?? now));
    this.#lookedAt = now;
    const isStopped = look !== "unknown" && look.state === "T";
    const isBusy = look !== "unknown" && look.state === "D"; // in a system call: a slow disk
    const signs = `${beat} ${look === "unknown" ? "" : look.ticks} ${isStopped}`;
    this.#quietMs = signs === this.#signs && !isBusy ? this.#quietMs + gap : 0;
    this.#signs = signs;
    const factor = isStopped ? 1 : look === "unknown" ? UNKNOWN_FACTOR : QUIET_FACTOR;
    if (this.#quietMs < factor * this.#silenceMs) return undefined;
    const what = isStopped ? "is stopped" : "gives no sign of life";
    return `its process ${pid} ${what}, for ${Math.round(this.#quietMs / 1000)} s`;
  }
}

const BEATS_PER_SILENCE = 10;

/** The beats of all ranks of a group, including this rank's own. */
export class Pulse {
  readonly #control: Control;
  readonly #hearts: readonly Heart[];
  readonly #timer: NodeJS.Timeout;

  constructor(
    control: Control,
    rank: number,
    peers: readonly ProcessIdentity[],
    silenceMs: number,
  ) {
    this.#control = control;
    this.#hearts = peers.map((peer) => new Heart(peer, silenceMs));
    const beat = () => void Atomics.add(control.words, control.beat(rank), 1);
    this.#timer = setInterval(beat, silenceMs / BEATS_PER_SILENCE).unref();
  }

  /** Returns what is wrong with a rank; undefined while it lives. */
  trouble(peer: number, now: number): string | undefined {
    const beat = Atomics.load(this.#control.words, this.#control.beat(peer));
    return this.#hearts[peer]?.trouble(beat, now);
  }

  /** Stops the beats. Must be called before the control block is closed. */
  close(): void {
    clearInterval(this.#timer);
  }
}

/**
 * Returns `T` for a process of this machine that is stopped; undefined if the system does not tell.
 */
export function processState(pid: number): string | undefined {
  return statusOf(pid)?.state;
}

/**
 * Returns something that changes while a process of this machine lives: the processor time that it
 * has used. It also changes while a system call of it does not return, as on a slow disk. Undefined
 * if the system does not tell.
 */
export function processSign(pid: number): string | undefined {
  const status = statusOf(pid);
  if (status === undefined) return undefined;
  return status.state === "D" ? `waiting at ${performance.now()}` : String(status.ticks);
}

/**
 * Returns the file that a process of this machine waits for in a call to the system; undefined if
 * that is not known: the first argument of the call is no file, or the system does not tell.
 */
export function fileOfCall(pid: number): string | undefined {
  try {
    const [, file = ""] = fs.readFileSync(`/proc/${pid}/syscall`, "latin1").split(" ");
    const path = fs.readlinkSync(`/proc/${pid}/fd/${Number(file)}`);
    return path.startsWith("/") && !path.startsWith("/dev/") ? path : undefined;
  } catch {
    return undefined;
  }
}

function statusOf(pid: number): (Look & { readonly start: number }) | undefined {
  try {
    const text = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" "); // the fields from the third on
    const ticks = Number(fields[11]) + Number(fields[12]);
    return { state: fields[0] ?? "X", ticks, start: Number(fields[19]) };
  } catch {
    return undefined;
  }
}
