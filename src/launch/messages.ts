/** What the launcher and its workers tell each other, over the channel that Node.js opens between them. */
import { z } from "zod";
import { type ErrorCode, type ErrorFields, LockstepError } from "../errors.ts";
import { eventSchema, type RunEvent } from "../telemetry/index.ts";
import type { Beginning, Changeable, RunOverrides, TrainResult } from "../train/index.ts";
import type { PortRange } from "../transport/index.ts";
import { errorSchema, notUnderstood, outcome, port } from "./checks.ts";

/** What a worker of this machine needs to take part in a run. */
export interface Assignment {
  /** The folder of the run's job. */
  readonly job: string;
  /** Folders below which the job's data lies, links followed. */
  readonly roots: readonly string[];
  /** Of what the job says. */
  readonly overrides: JobOverrides;
  readonly out: string;
  readonly beginning: Beginning;
  /** What may be another than before in a run that goes on. */
  readonly changes?: readonly Changeable[] | undefined;
  readonly rank: number;
  readonly workers: number;
  readonly threads: number;
  readonly meeting: Meeting;
  readonly dump?: string | undefined;
  /** How long a worker may wait for another that lives: it may validate and save meanwhile. An hour unless told. */
  readonly deadlineMs?: number;
  /** When the command was started, in milliseconds since 1970; unknown where it runs on another machine. */
  readonly startedAt?: number;
}

/** What may be another in the run of a job than the job says: it asks the model for nothing else. */
export type JobOverrides = Pick<RunOverrides, "steps" | "seed" | "parallel" | "zero" | "recompute">;

/** How the workers of a run find each other. */
export type Meeting =
  | { readonly kind: "memory"; readonly group: string }
  /** Each opens a door at this address of its machine, and is told those of all. */
  | {
      readonly kind: "network";
      readonly group: string;
      /** Workers on each machine: they have consecutive ranks and share memory. */
      readonly own: number;
      readonly host: string;
      /** That its door may have; any unless told. */
      readonly ports?: PortRange | undefined;
      readonly token: string;
      readonly tls: boolean;
    };

export type ToWorker =
  | { readonly kind: "job"; readonly job: Assignment }
  /** host:port of every worker's door, by rank. */
  | { readonly kind: "addresses"; readonly addresses: readonly string[] }
  /** Stop after the step at hand; `alone`: another is lost, and a worker that has not met all others yet ends at once. */
  | { readonly kind: "stop"; readonly alone?: boolean };

export type FromWorker =
  | { readonly kind: "event"; readonly event: RunEvent }
  /** Its door is open. */
  | { readonly kind: "listening"; readonly port: number }
  | { readonly kind: "done"; readonly outcome: TrainResult["outcome"] }
  | { readonly kind: "error"; readonly error: ErrorMessage };

const fromWorker = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("event"), event: eventSchema }),
  z.strictObject({ kind: z.literal("listening"), port }),
  z.strictObject({ kind: z.literal("done"), outcome }),
  z.strictObject({ kind: z.literal("error"), error: errorSchema }),
]);

/** Checked like what comes from another machine: a worker that is ill could send anything. Throws PROTOCOL. */
export function openFromWorker(value: unknown, from: string): FromWorker {
  const checked = fromWorker.safeParse(value);
  if (!checked.success) throw notUnderstood(from, checked.error);
  const { data } = checked;
  return data.kind === "error" ? { ...data, error: { code: undefined, ...data.error } } : data;
}

export interface ErrorMessage {
  /** Undefined for a mistake of the program. */
  readonly code: ErrorCode | undefined;
  /** With the hint, or with the stack where there is no code. */
  readonly text: string;
  readonly fields: ErrorFields;
}

export function errorMessage(error: unknown): ErrorMessage {
  if (error instanceof LockstepError) {
    return { code: error.code, text: error.message, fields: error.fields };
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: undefined, text, fields: {} };
}

/** Errors that only say that another worker has failed. */
export function isConsequence({ code }: ErrorMessage): boolean {
  return code === "PEER_LOST" || code === "ABORTED";
}
