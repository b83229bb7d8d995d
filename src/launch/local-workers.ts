/** The workers of a run on this machine, for those who try what the run survives. */
export interface LocalWorkers {
  /** Those that take part or are starting, ascending by number. */
  list(): readonly LocalWorker[];
  /** Sends a signal to the process of a worker. Returns false if it has ended. */
  signal(worker: number, name: NodeJS.Signals): boolean;
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
