/**
 * The messages between the launcher and its workers, over the channel that Node.js opens between
 * them.
 */
import { z } from "zod";
import { type ErrorCode, type ErrorFields, LockstepError, withCodeOfMemory } from "../errors.ts";
import { LINK_FAULTS, MOST_FAULT_MS, type PortRange } from "../net/index.ts";
import {
  type Beginning,
  type Changeable,
  DISK_FAULTS,
  type RunOverrides,
  type TrainResult,
} from "../run/index.ts";
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
  /** The number of the worker in the run. */
  readonly number: number;
  readonly threads: number;
  /** What the names of all groups of the run begin with. */
  readonly group: string;
  /** How it meets workers of other machines. Undefined in a run of one machine. */
  readonly network?: Network | undefined;
  readonly dump?: string | undefined;
  /**
   * How long a worker may wait for another that is alive, which may be validating or saving.
   * Default: one hour.
   */
  readonly deadlineMs?: number;
  /**
   * When the command was started, in milliseconds of the machine's clock (`launch/machine-clock`).
   * Unknown if it runs on another machine.
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
  | "excludeBelow"
  | "parallel"
  | "zero"
  | "recompute"
  | "offload"
  | "buddies"
  | "timetable"
  | "attention"
>;

/** A worker listens at an address of its machine, for workers of other machines. */
export interface Network {
  readonly host: string;
  /** The ports that the worker may listen on. Default: any. */
  readonly ports?: PortRange | undefined;
  readonly token: string;
  readonly tls: boolean;
}

const count = z.int().min(0);
const MOST_MEMBERS = 4096;
const history = z.strictObject({
  workersLost: count,
  workersJoined: count,
  generations: count,
  stepsRepeated: count,
  recoverySeconds: z.array(z.number()).max(1000).readonly(),
}) satisfies z.ZodType<History>;

/** What a worker is told once it has its job. */
const told = z.discriminatedUnion("kind", [
  /** The worker is in this generation, and meets its other members. */
  z.strictObject({
    kind: z.literal("form"),
    generation: count,
    rank: count,
    /** By rank. Those of one node have consecutive ranks and share memory. */
    members: z
      .array(
        z.strictObject({
          node: count,
          /** Where it listens (host:port); not there in a run of one machine. */
          address: z.string().min(1).max(300).optional(),
        }),
      )
      .min(1)
      .max(MOST_MEMBERS),
    /** Whether the run has begun, in an earlier generation. */
    hasBegun: z.boolean(),
  }),
  /** The next save of the worker has this fault: `lockstep chaos` asks for it. */
  z.strictObject({ kind: z.literal("disk-fault"), fault: z.enum(DISK_FAULTS) }),
  /** The links to workers of other machines have this fault for this time, in milliseconds. */
  z.strictObject({
    kind: z.literal("link-fault"),
    fault: z.enum(LINK_FAULTS),
    ms: z.int().min(0).max(MOST_FAULT_MS),
  }),
  /** What has happened to the workers of the run. */
  z.strictObject({ kind: z.literal("history"), history }),
  /** Leave this generation: after the present step, or now, because it cannot commit any more. */
  z.strictObject({
    kind: z.literal("regroup"),
    generation: count,
    when: z.enum(["after-step", "now"]),
  }),
  /** This worker leaves the run for good once it has left its generation. */
  z.strictObject({ kind: z.literal("leave") }),
  /**
   * Stop after the current step. `alone`: another worker has ended the run, so nobody is waited
   * for.
   */
  z.strictObject({ kind: z.literal("stop"), alone: z.boolean().optional() }),
]);

/** The schema of what a worker is told, for messages that carry it. */
export const toldSchema = told;

export type Told = z.infer<typeof told>;
/** The place of a worker in a generation. */
export type Formed = Extract<Told, { readonly kind: "form" }>;
export type ToWorker = { readonly kind: "job"; readonly job: Assignment } | Told;

export type FromWorker =
  | { readonly kind: "event"; readonly event: RunEvent }
  /** The event loop of the worker runs. */
  | { readonly kind: "beat"; readonly progress: Progress }
  /**
   * The worker has left this generation, with the state after `step`, and waits for the next. It
   * listens on this port for workers of other machines. `short`: it left because the generation had
   * too few workers for the memory that they have.
   */
  | {
      readonly kind: "ready";
      readonly generation: number;
      readonly step: number;
      readonly port?: number | undefined;
      readonly short?: Short | undefined;
    }
  /** A member has lost another one of its generation, by rank. */
  | { readonly kind: "lost"; readonly generation: number; readonly rank: number }
  /** Where weights lie in its memory, in the present generation. */
  | { readonly kind: "weights"; readonly address: number; readonly byteLength: number }
  /** The worker was asked to leave the run, by SIGTERM. */
  | { readonly kind: "drain" }
  /** The worker is so much slower than the others that the run is to go on without it. */
  | { readonly kind: "slow"; readonly why: string }
  | { readonly kind: "done"; readonly outcome: TrainResult["outcome"] }
  | { readonly kind: "error"; readonly error: ErrorMessage };

const MOST_WHY = 2000;
/** As the longest path of Linux. */
const MOST_PATH = 4096;

/** What a worker does, and for how long it has made no progress, in ms (`membership/`). */
export const progressSchema = z.strictObject({
  doing: z.enum(["computing", "waiting", "reading", "writing", "blocked", "other"]),
  stillMs: z.number().min(0),
  file: z.string().max(MOST_PATH).optional(),
});

export type Progress = z.infer<typeof progressSchema>;

/** How many workers were too few, and why in one sentence. */
const shortSchema = z.strictObject({ workers: count, why: z.string().max(MOST_WHY) });
export type Short = z.infer<typeof shortSchema>;

/** The schema of what a worker says, for messages that carry it. */
export const fromWorkerSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("event"), event: eventSchema }),
  z.strictObject({ kind: z.literal("beat"), progress: progressSchema }),
  z.strictObject({
    kind: z.literal("ready"),
    generation: count,
    step: count,
    port: port.optional(),
    short: shortSchema.optional(),
  }),
  z.strictObject({ kind: z.literal("lost"), generation: count, rank: count }),
  z.strictObject({ kind: z.literal("weights"), address: count, byteLength: count }),
  z.strictObject({ kind: z.literal("drain") }),
  z.strictObject({ kind: z.literal("slow"), why: z.string().max(MOST_WHY) }),
  z.strictObject({ kind: z.literal("done"), outcome }),
  z.strictObject({ kind: z.literal("error"), error: errorSchema }),
]);

/**
 * Checks a message of a worker like one from another machine, because a faulty worker could send
 * anything. Throws PROTOCOL.
 */
export function openFromWorker(value: unknown, from: string): FromWorker {
  const checked = fromWorkerSchema.safeParse(value);
  if (!checked.success) throw notUnderstood(from, checked.error);
  return checked.data;
}

export interface ErrorMessage {
  /** Undefined for an error without a code, which is a bug of the program. */
  readonly code?: ErrorCode | undefined;
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

/**
 * Whether an error says nothing against the run: another worker has failed, or bytes in memory have
 * changed by themselves. Then the run goes on with other workers, or from its checkpoint.
 */
export function isConsequence({ code }: ErrorMessage): boolean {
  return code === "PEER_LOST" || code === "ABORTED" || code === "DRIFT";
}
