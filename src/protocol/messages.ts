/**
 * The messages between the launcher and its workers, over the channel that Node.js opens between
 * them.
 */
import { z } from "zod";
import { type ErrorCode, type ErrorFields, LockstepError, withCodeOfMemory } from "../errors.ts";
import type { PortRange } from "../net/index.ts";
import type { Beginning, Changeable, RunOverrides, TrainResult } from "../run/index.ts";
import { eventSchema, type History, type RunEvent } from "../telemetry/index.ts";
import { errorSchema, notUnderstood, outcome, port } from "./checks.ts";

/** What a worker of this machine needs to take part in a run. */
export interface Assignment {
  /** The folder of the run's job. */
  readonly job: string;
  /** Folders below which the job's data must lie, after links are followed. */
  readonly roots: readonly string[];
  /** The options that replace what the job says. */
  readonly overrides: JobOverrides;
  readonly out: string;
  readonly beginning: Beginning;
  /** The options that may change in a run that is resumed. */
  readonly changes?: readonly Changeable[] | undefined;
  readonly rank: number;
  readonly workers: number;
  readonly threads: number;
  readonly meeting: Meeting;
  readonly dump?: string | undefined;
  /**
   * How long a worker may wait for another that is alive, which may be validating or saving.
   * Default: one hour.
   */
  readonly deadlineMs?: number;
  /**
   * When the command was started, in milliseconds since 1970. Unknown if it runs on another
   * machine.
   */
  readonly startedAt?: number;
}

/** The options of a job that a run may replace: they need no graph that the job does not have. */
export type JobOverrides = Pick<
  RunOverrides,
  | "steps"
  | "seed"
  | "checkpointEvery"
  | "keepLast"
  | "keepEvery"
  | "checkpoints"
  | "parallel"
  | "zero"
  | "recompute"
  | "offload"
>;

/** How the workers of a run find each other. */
export type Meeting =
  | { readonly kind: "memory"; readonly group: string }
  /**
   * Each worker listens at this address of its machine and is then told the addresses of all
   * workers.
   */
  /**
   * The workers of this machine come and go: each is told of its generations. Their groups in
   * shared memory have the name of the run and the number of the generation.
   */
  | { readonly kind: "generations"; readonly group: string }
  | {
      readonly kind: "network";
      readonly group: string;
      /** The number of workers on each machine: they have consecutive ranks and share memory. */
      readonly own: number;
      readonly host: string;
      /** The ports that the worker may listen on. Default: any. */
      readonly ports?: PortRange | undefined;
      readonly token: string;
      readonly tls: boolean;
    };

/** The place of a worker in a generation. */
export interface Formed {
  readonly generation: number;
  readonly rank: number;
  readonly workers: number;
  /** Whether the run has begun, in an earlier generation. */
  readonly hasBegun: boolean;
}

export type ToWorker =
  | { readonly kind: "job"; readonly job: Assignment }
  /** The address (host:port) at which each worker listens, by rank. */
  | { readonly kind: "addresses"; readonly addresses: readonly string[] }
  /**
   * Stop after the current step. `alone`: another worker is lost, and a worker that has not yet met
   * all others ends at once.
   */
  | { readonly kind: "stop"; readonly alone?: boolean }
  /** The worker is in this generation, and meets its other members. */
  | ({ readonly kind: "form" } & Formed)
  /** What has happened to the workers of the run. */
  | { readonly kind: "history"; readonly history: History }
  /** Leave this generation: after the present step, or now, because it cannot commit any more. */
  | {
      readonly kind: "regroup";
      readonly generation: number;
      readonly when: "after-step" | "now";
    };

export type FromWorker =
  | { readonly kind: "event"; readonly event: RunEvent }
  /** The worker listens on this port. */
  | { readonly kind: "listening"; readonly port: number }
  /** The event loop of the worker runs. */
  | { readonly kind: "beat" }
  /** The worker has left this generation, with the state after `step`, and waits for the next. */
  | { readonly kind: "ready"; readonly generation: number; readonly step: number }
  /** A member has lost another one of its generation, by rank. */
  | { readonly kind: "lost"; readonly generation: number; readonly rank: number }
  /** The worker was asked to leave the run, by SIGTERM. */
  | { readonly kind: "drain" }
  | { readonly kind: "done"; readonly outcome: TrainResult["outcome"] }
  | { readonly kind: "error"; readonly error: ErrorMessage };

const count = z.int().min(0);
const fromWorker = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("event"), event: eventSchema }),
  z.strictObject({ kind: z.literal("listening"), port }),
  z.strictObject({ kind: z.literal("beat") }),
  z.strictObject({ kind: z.literal("ready"), generation: count, step: count }),
  z.strictObject({ kind: z.literal("lost"), generation: count, rank: count }),
  z.strictObject({ kind: z.literal("drain") }),
  z.strictObject({ kind: z.literal("done"), outcome }),
  z.strictObject({ kind: z.literal("error"), error: errorSchema }),
]);

/**
 * Checks a message of a worker like one from another machine, because a faulty worker could send
 * anything. Throws PROTOCOL.
 */
export function openFromWorker(value: unknown, from: string): FromWorker {
  const checked = fromWorker.safeParse(value);
  if (!checked.success) throw notUnderstood(from, checked.error);
  const { data } = checked;
  return data.kind === "error" ? { ...data, error: { code: undefined, ...data.error } } : data;
}

export interface ErrorMessage {
  /** Undefined for an error without a code, which is a bug of the program. */
  readonly code: ErrorCode | undefined;
  /** The message with its hint, or with its stack if there is no code. */
  readonly text: string;
  readonly fields: ErrorFields;
}

export function errorMessage(thrown: unknown): ErrorMessage {
  const error = withCodeOfMemory(thrown);
  if (error instanceof LockstepError) {
    return { code: error.code, text: error.message, fields: error.fields };
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: undefined, text, fields: {} };
}

/** Whether an error only says that another worker has failed. */
export function isConsequence({ code }: ErrorMessage): boolean {
  return code === "PEER_LOST" || code === "ABORTED";
}
