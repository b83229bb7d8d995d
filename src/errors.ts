/**
 * Every error that a user can meet. Errors are data with a sentence: a stable code, the fields, and
 * a text that says what was done, what was expected, what came, and what to do. Programming
 * mistakes use `assert`.
 */

/** Stable codes, by area. Never reuse one for another meaning. */
export type ErrorCode =
  | "SHAPE_MISMATCH" // two shapes that must agree do not
  | "TYPE_MISMATCH" // an element type that an operator does not take
  | "INVALID_ATTRIBUTE" // an operator's attribute is missing or out of range
  | "INVALID_GRAPH" // not a directed acyclic graph of known values
  | "UNKNOWN_OPERATOR" // no definition of this operator
  | "NO_GRADIENT" // a gradient was asked for through an operator that has none
  | "ONNX_PARSE" // bytes that are not an ONNX model
  | "ONNX_UNSUPPORTED" // a part of ONNX that is not understood
  | "FILE_NOT_FOUND"
  | "FILE_CORRUPT"
  | "DISK_FULL"
  | "IO_FAILED" // any other failure of the file system
  | "STORE" // storage for checkpoints that cannot be reached, or refuses
  | "ENGINE_LIBRARY" // the engine's library is missing or too old
  | "ENGINE_FAILED" // the engine refused or failed; its own words are in the text
  | "ENGINE_CLOSED" // use after close
  | "INVALID_BINDING" // tensors that do not fit a compiled graph, or overlap
  | "OUT_OF_MEMORY"
  | "MEMORY_NAME" // shared memory whose name is taken, unknown or not allowed
  | "SHARED_MEMORY" // a machine where memory cannot be shared: /dev/shm is missing, read-only or another's
  | "INVALID_OPTION" // a run file or a command-line option
  | "RUN_FILE" // a run file that does not load or exports no run
  | "RUN_FOLDER" // a run's folder outside of the agent's
  | "DATA_EMPTY"
  | "DATA_TOO_SMALL" // fewer samples than one batch
  | "DATA_FORMAT"
  | "DATA_PLACE" // a place of data outside of the folders that data may come from
  | "DATA_DIFFERS" // data that is not what the job was made with
  | "NOT_DATA" // a part of a run that cannot be written down, so that no other process can have it
  | "JOB" // a folder or file that is not a job, or whose parts do not fit each other
  | "JOB_VERSION" // a job of another version
  | "DRIFT" // state that changed by itself, or differs between workers, and cannot be healed
  | "NOT_FINITE" // a loss or gradient that is NaN or infinite
  | "CHECKPOINT" // a run folder that cannot be resumed
  | "RUN_EXISTS" // a folder that holds an unfinished run, where another was to begin
  | "RUN_LOCKED" // a folder that another process is writing a run to
  | "FENCED" // a coordinator whose run another one leads by now
  | "PEER_LOST" // a worker of the group vanished or left
  | "PEER_FAILED" // a worker on another machine failed without a code, which is a bug of lockstep
  | "DEADLINE" // a wait took longer than it may
  | "ABORTED" // the group was given up, by this worker or another
  | "PROTOCOL" // bytes or a message of a different version, run or program
  | "UNAUTHORIZED" // a peer that does not know the run's token
  | "AGENT_BUSY" // an agent that has a job already
  | "ADDRESS"; // an address that cannot be used: taken, unknown, unreachable

/** What to do when memory does not suffice. */
export const LESS_MEMORY =
  "Let more workers share it (--workers 4 with --zero 3), keep the optimizer's state on disk (--offload disk), use a smaller model or micro-batch, or a machine with more memory.";

/** What to do when what the workers of a machine share does not fit. */
export const MORE_SHARED_MEMORY =
  "Enlarge /dev/shm (in a container: docker run --shm-size=8g), take fewer workers (--workers), or let them share parameters and the optimizer's state (--zero 3).";

/** Values that a program may read from an error. */
export type ErrorFields = Readonly<
  Record<string, string | number | boolean | readonly (string | number)[]>
>;

/** An error that a user can act on. `message` is a full sentence; `hint` says what to do. */
export class LockstepError extends Error {
  readonly code: ErrorCode;
  readonly fields: ErrorFields;
  readonly hint: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; fields?: ErrorFields; cause?: unknown } = {},
  ) {
    super(options.hint === undefined ? message : `${message}\n  ${options.hint}`, {
      cause: options.cause,
    });
    this.name = "LockstepError";
    this.code = code;
    this.fields = options.fields ?? {};
    this.hint = options.hint;
  }
}

/**
 * Checks what the programmer holds to be true. A failure is a bug of Lockstep, never the user's.
 */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Error(`Lockstep bug: ${what}`);
}

/**
 * Gives JavaScript's error for an array without memory a code. Every other error is returned
 * unchanged.
 */
export function withCodeOfMemory(error: unknown): unknown {
  if (!(error instanceof RangeError) || !/allocation failed/i.test(error.message)) return error;
  return new LockstepError("OUT_OF_MEMORY", "There was no memory left for an array.", {
    hint: LESS_MEMORY,
    cause: error,
  });
}
