import type { Generation, MembershipState } from "../membership/index.ts";

/** The workers of a run on this machine, for those who try what the run survives. */
export interface LocalWorkers {
  /** Those that take part or are starting, ascending by number. */
  list(): readonly LocalWorker[];
  /** The process of a worker. */
  process(worker: number): LocalProcess | undefined;
  /** Lets another worker start at the place of one that was asked to leave. */
  reopen(place: string): void;
  readonly counts: { readonly lost: number; readonly joined: number };
}

export interface LocalWorker {
  readonly number: number;
  readonly place: string;
  /** Whether it belongs to the present generation. */
  readonly isMember: boolean;
}

export function listOf({ workers }: MembershipState): LocalWorker[] {
  return workers
    .filter(({ status }) => ["starting", "ready", "member"].includes(status))
    .map(({ id, place, status }) => ({ number: id, place, isMember: status === "member" }));
}

/** What can be done to a worker's process. All of it returns false if the process has ended. */
export interface LocalProcess {
  signal(name: NodeJS.Signals): boolean;
  /** Flips a bit of its weights. `which`, in [0, 1), says which one. */
  flipBit(which: number): boolean;
}

/** Counts the workers that were lost, and those that joined after the first generation. */
export class Tally {
  lost = 0;
  readonly #members = new Set<number>();
  #first = 0;

  formed({ number, members }: Generation): void {
    for (const { worker } of members) this.#members.add(worker);
    if (number === 1) this.#first = members.length;
  }

  /** Whether the worker was in a generation. */
  has(worker: number): boolean {
    return this.#members.has(worker);
  }

  get counts(): LocalWorkers["counts"] {
    return { lost: this.lost, joined: this.#members.size - this.#first };
  }
}

/** A signal to all processes of a run reaches the launcher too; after this time it is one's own. */
export const ALL_MS = 100;
