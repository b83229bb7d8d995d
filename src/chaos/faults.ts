/**
 * The faults that a chaos run does to its own workers: their kinds, how they are drawn from a seed,
 * and how they are written to a file and read back. It knows no process and no clock.
 */
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import { MOST_FAULT_MS } from "../net/index.ts";

/** What each kind of fault does to a worker, to what it has written, or to the run's launcher. */
export const KINDS = {
  kill: "ends it by SIGKILL",
  stop: "stops it by SIGSTOP, so that it hangs",
  segfault: "ends it by SIGSEGV, as a crash of native code does",
  "bit-flip": "flips a bit of its weights in its memory",
  "slow-worker": "stops it for most of the next seconds, again and again",
  corrupt: "changes a byte of the newest checkpoint, which shows when that is read next",
  "disk-full": "lets its next part of a checkpoint fail for want of space",
  "slow-disk": "lets its next part of a checkpoint take seconds",
  partition: "cuts its machine off from all others for a time, without closing a connection",
  "slow-link": "holds the bytes of its links to other machines back for most of the next seconds",
  preempt: "asks it to leave by SIGTERM; its place gets another worker later",
  coordinator: "ends the launcher by SIGKILL and starts it again, while the workers go on",
} as const;

export type FaultKind = keyof typeof KINDS;
export const DEFAULT_KINDS: readonly FaultKind[] = ["kill", "stop", "segfault"];
/** What each kind does, for people. */
export const KIND_HELP = [
  "\nFaults, and what each does to a worker or to the run:",
  ...Object.entries(KINDS).map(([kind, what]) => `  ${kind.padEnd(12)} ${what}`),
].join("\n");

/** A fault that was done, or is to be done again. */
export interface Fault {
  /** The last committed step when it was done. */
  readonly step: number;
  /** The worker, by its number in the run. Undefined for the fault `coordinator`. */
  readonly worker?: number | undefined;
  readonly kind: FaultKind;
  /** When it was done, in seconds since the start of the run. A replay goes by steps. */
  readonly seconds: number;
  /** How long a partition lasts, in milliseconds. Undefined for the other kinds. */
  readonly ms?: number | undefined;
}

/** A fault before it is known which workers live. */
export interface Draw {
  readonly afterMs: number;
  readonly kind: FaultKind;
  /** In [0, 1): which of the workers that live then. */
  readonly which: number;
  /** How long it lasts if it is a partition, in milliseconds. */
  readonly ms: number;
}

/**
 * A partition may be over before anyone is missed (1.5 s at least), or last until all that is cut
 * off is given up (10 s). As many are shorter than 3 s as are longer.
 */
const LEAST_CUT_MS = 500;
const MOST_CUT_MS = 18_000;

/**
 * Faults without end, drawn from a seed. The times between two lie between half and one and a half
 * times `everyMs`.
 */
export function* drawFaults(
  seed: number,
  { everyMs, kinds }: { readonly everyMs: number; readonly kinds: readonly FaultKind[] },
): Generator<Draw, never> {
  const random = randomFrom(seed);
  for (;;) {
    const afterMs = everyMs * (0.5 + random());
    const kind = kinds[Math.floor(random() * kinds.length)] as FaultKind;
    const which = random();
    const ms = Math.round(LEAST_CUT_MS * (MOST_CUT_MS / LEAST_CUT_MS) ** random());
    yield { afterMs, kind, which, ms };
  }
}

/** Numbers in [0, 1): SplitMix32, a 32-bit form of Steele, Lea and Flood's SplitMix (2014). */
function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let x = state ^ (state >>> 16);
    x = Math.imul(x, 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
  };
}

/**
 * @throws INVALID_OPTION for a kind that is unknown, or that the system of this one does not allow
 */
export function kindsOf(names: readonly string[], platform: NodeJS.Platform): FaultKind[] {
  return names.map((name) => {
    if (name === "bit-flip" && platform !== "linux") throw notHere(name);
    if (Object.hasOwn(KINDS, name)) return name as FaultKind;
    throw new LockstepError("INVALID_OPTION", `There is no fault "${name}".`, {
      hint: `Possible are: ${Object.keys(KINDS).join(", ")}.`,
      fields: { kind: name },
    });
  });
}

function notHere(kind: string): LockstepError {
  const text = `The fault "${kind}" is possible on Linux only.`;
  return new LockstepError("INVALID_OPTION", text, { fields: { kind } });
}

const faultSchema = z
  .strictObject({
    step: z.int().min(0),
    worker: z.int().min(0).optional(),
    kind: z.enum(Object.keys(KINDS) as [FaultKind, ...FaultKind[]]),
    seconds: z.number().min(0),
    ms: z.int().min(0).max(MOST_FAULT_MS).optional(),
  })
  .refine(({ kind, worker }) => (kind === "coordinator") === (worker === undefined))
  .refine(({ kind, ms }) => (kind === "partition") === (ms !== undefined));

export function lineOf({ step, worker, kind, seconds, ms }: Fault): string {
  return `${JSON.stringify({ step, worker, kind, seconds, ms })}\n`;
}

/**
 * Reads the faults of a file of JSON lines, in the order in which they are to be done.
 * @throws FILE_CORRUPT naming the first line that is not a fault
 */
export function faultsIn(text: string, path: string): Fault[] {
  const lines = text.split("\n").map((line, index) => ({ line: line.trim(), number: index + 1 }));
  const faults = lines
    .filter(({ line }) => line !== "")
    .map(({ line, number }) => {
      const checked = faultSchema.safeParse(jsonOf(line));
      if (checked.success) return checked.data;
      throw new LockstepError("FILE_CORRUPT", `Line ${number} of "${path}" is not a fault.`, {
        hint: "A fault is written as lockstep chaos writes it to chaos.jsonl in the folder of its run.",
        fields: { path, line: number },
      });
    });
  return faults.sort((a, b) => a.step - b.step);
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return undefined;
  }
}
