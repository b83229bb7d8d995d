/** What a supervisor of a run is given. */
import type { StateStore } from "../durable/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import type { Crew, CrewEvents } from "./crew.ts";
import type { LocalWorkers } from "./local-workers.ts";
import type { StoredRun } from "./stored.ts";

export interface SuperviseOptions {
  /** With fewer workers the run waits. */
  readonly minWorkers: number;
  /** Workers beyond this number stand by. */
  readonly maxWorkers: number;
  /** So many workers divide the model among them. Default: 1. */
  readonly together?: number | undefined;
  /** So many of them are of one machine. Default: all. */
  readonly within?: number | undefined;
  /** Makes what starts the workers. */
  readonly crew: (events: CrewEvents) => Crew;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
  /** Is given the workers before the first of them starts. */
  readonly onWorkers?: ((workers: LocalWorkers) => void) | undefined;
  /** Where the state of the run is kept for another launcher, and what one before has left. */
  readonly kept?:
    | (Pick<StoredRun, "group" | "job" | "listensAt"> & {
        readonly store: StateStore;
        readonly last: StoredRun | undefined;
      })
    | undefined;
}
