/** Where the workers of a run live: on this machine, or behind the agents of several. */
import type { Place } from "../membership/index.ts";
import type { Standing } from "../protocol/index.ts";
import type { WorkerHandle } from "./handle.ts";
import type { OnSigns } from "./signs.ts";

export interface Crew {
  /** The places at which workers can be started now; they may come and go. */
  readonly places: readonly Place[];
  /** Starts a worker at a place, and gives its handle a body. */
  start(worker: WorkerHandle, place: string): void;
  /** Workers that another launcher has started and that have gone on without it. */
  readonly taken?: ReadonlyMap<number, Standing>;
  /** Gives their handles bodies; workers without a handle are killed. */
  adopt?(workers: ReadonlyMap<number, WorkerHandle>): void;
  /** From now on they are heard, first with what they said meanwhile. */
  listen?(): void;
  /** Leaves the workers to another launcher. */
  leave?(): void;
  /** Called when no worker is left. */
  close(): void;
}

export interface CrewEvents {
  readonly signs: OnSigns;
  /** The connection to a worker has closed. It ends after this was told of all workers of its agent. */
  readonly closed: (worker: number, why: string) => void;
  /** These places are there now, or there again. */
  readonly opened: (places: readonly string[]) => void;
  readonly notice: (text: string) => void;
  /** No worker can be started, so the run cannot go on. */
  readonly failed: (error: unknown) => void;
  /** The node of a rank of the present generation, and whether the run has begun. */
  readonly nodeOf: (rank: number) => string | undefined;
  readonly hasBegun: () => boolean;
}
