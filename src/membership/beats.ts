/** What workers say of themselves with every beat. */
export interface Beat {
  readonly worker: number;
  /** What the worker does, as it says itself; undefined if only its process was seen to live. */
  readonly progress?: Progress | undefined;
}

/**
 * computing: a run of its device is under way. waiting: for other members, and nothing else.
 * reading, writing: for an operation on a file. blocked: its process is in a call to the system that
 * waits for a disk, and says nothing. other: anything else, as compiling.
 */
export type Doing = "computing" | "waiting" | "reading" | "writing" | "blocked" | "other";

export interface Progress {
  readonly doing: Doing;
  /** For how long no run and no wait has begun or ended. */
  readonly stillMs: number;
  /** The file that it waits for, if that is known. */
  readonly file?: string | undefined;
}
