import type { MembershipState } from "../membership/index.ts";
import type { LinkFault } from "../net/index.ts";
import type { DiskFault } from "../run/index.ts";
import type { History } from "../telemetry/index.ts";

/** The workers of a run on this machine, for those who try what the run survives. */
export interface LocalWorkers {
  /** Those that take part or are starting, ascending by number. */
  list(): readonly LocalWorker[];
  /** The process of a worker. */
  process(worker: number): LocalProcess | undefined;
  /** Lets another worker start at the place of one that was asked to leave. */
  reopen(place: string): void;
  /** What has happened to them so far. */
  readonly history: History;
}

export interface LocalWorker {
  readonly number: number;
  readonly place: string;
  /** Its machine. */
  readonly node: string;
  /** Whether it belongs to the present generation. */
  readonly isMember: boolean;
}

export function listOf({ workers }: MembershipState): LocalWorker[] {
  return workers
    .filter(({ status }) => ["starting", "ready", "member"].includes(status))
    .map(({ id, place, node, status }) => {
      return { number: id, place, node, isMember: status === "member" };
    });
}

/** What can be done to a worker's process. All of it returns false if the process has ended. */
export interface LocalProcess {
  signal(name: NodeJS.Signals): boolean;
  /** Flips a bit of its weights. `which`, in [0, 1), says which one. */
  flipBit(which: number): boolean;
  /** Its next save has this fault. */
  failDisk(fault: DiskFault): boolean;
  /**
   * Its links to workers of other machines have this fault for this time, in milliseconds. A
   * partition cuts off its whole machine, also from the launcher.
   */
  failLinks(fault: LinkFault, ms: number): boolean;
}

/**
 * A signal that is sent to all processes of a run reaches the launcher too. If it has not got one
 * within this time, the signal was meant for the worker alone.
 */
export const ALL_MS = 100;
