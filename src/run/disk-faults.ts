/**
 * Faults of the disk that a worker does to its own next save because `lockstep chaos` asks for it:
 * the shard goes the way that it always goes, and its bytes fail or come late. Nothing is changed in
 * a run without such faults but one call for each shard.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { CheckpointStore, ShardBytes } from "../checkpoint/index.ts";

/** What can happen to the disk in the next save of a worker. */
export const DISK_FAULTS = ["disk-full", "slow-disk"] as const;
export type DiskFault = (typeof DISK_FAULTS)[number];

/** How long a slow disk holds up a shard. */
const SLOW_MS = 3_000;

export class DiskFaults {
  readonly #slowMs: number;
  #next: DiskFault | undefined;

  constructor(slowMs = SLOW_MS) {
    this.#slowMs = slowMs;
  }

  /** The next shard that is written has this fault. */
  arm(fault: DiskFault): void {
    this.#next = fault;
  }

  /** Lets the shards that this store writes have the faults. */
  haunt(store: CheckpointStore): void {
    const write = store.write.bind(store);
    store.write = (draft, rank, shard) => write(draft, rank, this.#take(shard));
  }

  #take(shard: ShardBytes): ShardBytes {
    const fault = this.#next;
    this.#next = undefined;
    if (fault === undefined) return shard;
    const { byteLength, pieces } = shard;
    const slowMs = this.#slowMs;
    return {
      byteLength,
      pieces: (async function* () {
        if (fault === "slow-disk") await delay(slowMs);
        for await (const piece of pieces) {
          if (fault === "disk-full") throw noSpace();
          yield piece;
        }
      })(),
    };
  }
}

/** What the system says when a disk is full. */
function noSpace(): NodeJS.ErrnoException {
  return Object.assign(new Error("ENOSPC: no space left on device, write"), {
    code: "ENOSPC",
    syscall: "write",
  });
}
