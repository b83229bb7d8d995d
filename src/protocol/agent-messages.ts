/**
 * The messages between a launcher and the agents of a run. A job is data and travels in pieces:
 * graphs, initial values, and the places of the data. It never brings code along. Every message is
 * checked to the last field.
 */
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import { sharingShape } from "../job/index.ts";
import { MOST_FAULT_MS } from "../net/index.ts";
import { type Beginning, CHANGEABLE } from "../run/index.ts";
import { errorSchema, notUnderstood, port } from "./checks.ts";
import { fromWorkerSchema, progressSchema, toldSchema } from "./messages.ts";

/**
 * The version of these messages. It changes with every change that an older side would not
 * understand.
 */
export const AGENT_PROTOCOL = 12;
export const DEFAULT_AGENT_PORT = 4100;

const MAX_WORKERS = 4096;
/** The number of a worker in its run. */
const worker = z.int().min(0);
const workers = z.int().min(1).max(MAX_WORKERS);
const count = z.int().min(0);
const MAX_FILES = 1000;
const MAX_WORDS = 2 ** 14;
const MOST_AWAIT_MS = 86_400_000;
/** The most bytes of a job's files in one message, counted before they are encoded as text. */
export const PIECE_BYTES = 2 ** 19;
/** The number of pieces that a launcher may send ahead of what the agent has written. */
export const PIECES_AHEAD = 8;

/** A path below the agent's folder, written in the same way on all systems. */
const place = z
  .string()
  .min(1)
  .max(4096)
  .refine(isPlace, "must be a path below the folder, with / and without ..");

const group = z.string().regex(/^[\w-]{1,64}$/);

/** Which launcher of a run this is: it replaces those of lower terms, if any has a term. */
const leadShape = {
  /** A part of the names of shared memory, by which the jobs of a run are known too. */
  group,
  term: count.optional(),
};

const job = z.strictObject({
  kind: z.literal("job"),
  /** The name of the run, shown to people. */
  name: z.string().min(1).max(1000),
  /**
   * The names and sizes in bytes of the job's files, in the order in which their pieces are sent.
   */
  files: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,60}\.(?:json|onnx|safetensors)$/),
        bytes: count,
      }),
    )
    .min(1)
    .max(MAX_FILES),
  out: place,
  beginning: z.enum(["new", "anew", "resume"] satisfies Beginning[]),
  overrides: z.strictObject({
    steps: count.optional(),
    seed: count.optional(),
    checkpointEvery: count.optional(),
    keepLast: count.optional(),
    keepEvery: count.optional(),
    checkpoints: z.string().max(2000).optional(),
    excludeBelow: z.number().min(0).max(0.9).optional(),
    ...sharingShape,
  }),
  /** The options that may change in a run that is resumed. */
  changes: z.array(z.enum(CHANGEABLE)).max(CHANGEABLE.length).optional(),
  /** The most workers that run here at a time. */
  own: workers,
  /**
   * The number of threads of each worker. Default: the cores of the machine, divided among its
   * workers.
   */
  threads: z.int().min(1).max(4096).optional(),
  ...leadShape,
  /**
   * How long its workers go on when the launcher vanishes, until one comes that takes them over.
   * Default: not at all, they stop and save.
   */
  awaitMs: z.int().min(0).max(MOST_AWAIT_MS).optional(),
});

const request = z.discriminatedUnion("kind", [
  job,
  /** The next bytes of the job's files, in base64. */
  z.strictObject({
    kind: z.literal("piece"),
    bytes: z
      .string()
      .min(1)
      .max(Math.ceil(PIECE_BYTES / 3) * 4)
      .regex(/^[A-Za-z0-9+/]+={0,2}$/, "must be base64"),
  }),
  /** Start a worker with this number, which no other worker of the run has had. */
  z.strictObject({ kind: z.literal("start"), worker }),
  z.strictObject({ kind: z.literal("tell"), worker, message: toldSchema }),
  z.strictObject({
    kind: z.literal("signal"),
    worker,
    name: z.enum(["SIGKILL", "SIGTERM", "SIGSTOP", "SIGCONT", "SIGSEGV"]),
  }),
  /**
   * Hold all bytes back for this time, in milliseconds, between this machine and others: those of
   * the agent and those of its workers. `lockstep chaos` asks for it.
   */
  z.strictObject({ kind: z.literal("cut-off"), ms: z.int().min(0).max(MOST_FAULT_MS) }),
  /** Give this launcher the workers of a job whose launcher is gone, or is of a lower term. */
  z.strictObject({ kind: z.literal("take-over"), ...leadShape }),
  /** The job is over: its workers end at once. A launcher that only vanishes lets them save. */
  z.strictObject({ kind: z.literal("end") }),
]);

/** How a worker stands, by what it was told and has said. */
const standing = z.strictObject({
  worker,
  /** The generation that it was told of last, and whether it has left that and waits for the next. */
  generation: count,
  isReady: z.boolean(),
  /** The step whose state it held when it was ready last. */
  step: count,
  port: port.optional(),
});

const reply = z.discriminatedUnion("kind", [
  /** The launcher may send this many pieces in addition to those asked for before. */
  z.strictObject({ kind: z.literal("more"), pieces: z.int().min(1).max(PIECES_AHEAD) }),
  z.strictObject({ kind: z.literal("accepted") }),
  /**
   * The answer to a launcher that takes a job over. What its workers said while there was none
   * follows.
   */
  z.strictObject({ kind: z.literal("taken-over"), workers: z.array(standing).max(MAX_WORKERS) }),
  z.strictObject({ kind: z.literal("refused"), error: errorSchema }),
  /** There is no job to take over. */
  z.strictObject({ kind: z.literal("nothing") }),
  z.strictObject({ kind: z.literal("said"), worker, message: fromWorkerSchema }),
  /** Signs of life since the last such message, and those whose process is stopped by a signal. */
  z.strictObject({
    kind: z.literal("signs"),
    alive: z
      .array(z.strictObject({ worker, progress: progressSchema.optional() }))
      .max(MAX_WORKERS),
    stopped: z.array(worker).max(MAX_WORKERS),
  }),
  /** The process of a worker has ended. `words`: the last lines of its output. */
  z.strictObject({
    kind: z.literal("ended"),
    worker,
    pid: z.int().optional(),
    status: z.int().nullable(),
    signal: z
      .string()
      .regex(/^SIG[A-Z0-9]{1,20}$/)
      .nullable(),
    words: z.string().max(MAX_WORDS),
  }),
]);

/** The first message of a machine that asks a running launcher to take part. */
const offer = z.strictObject({
  kind: z.literal("join"),
  /** Where its workers listen. */
  host: z
    .string()
    .max(255)
    .regex(/^[\w.:-]+$/),
  /** How many workers it takes. */
  workers,
  /** The run whose workers it has still, and their numbers: it has lost the launcher before. */
  has: z.strictObject({ group, workers: z.array(worker).max(MAX_WORKERS) }).optional(),
});

export type AgentJob = z.infer<typeof job>;
export type AgentRequest = z.infer<typeof request>;
export type AgentReply = z.infer<typeof reply>;
export type Standing = z.infer<typeof standing>;
export type AgentOffer = z.infer<typeof offer>;

export function isPlace(path: string): boolean {
  const parts = path.split("/");
  return !parts.includes("..") && !parts.includes("") && !/[\\\0:]/.test(path);
}

/** The message in the form in which it is sent. */
export function envelope<Message extends AgentRequest | AgentReply | AgentOffer>(
  message: Message,
): unknown {
  return { v: AGENT_PROTOCOL, ...message };
}

/** Throws PROTOCOL. */
export function openRequest(value: unknown, from: string): AgentRequest {
  return open(request, value, from);
}

/** Throws PROTOCOL. */
export function openReply(value: unknown, from: string): AgentReply {
  return open(reply, value, from);
}

/** Throws PROTOCOL. */
export function openOffer(value: unknown, from: string): AgentOffer {
  return open(offer, value, from);
}

function open<Message>(schema: z.ZodType<Message>, value: unknown, from: string): Message {
  const { v, ...message } = (typeof value === "object" && value !== null ? value : {}) as {
    readonly v?: unknown;
  };
  if (v !== AGENT_PROTOCOL) {
    throw new LockstepError(
      "PROTOCOL",
      `${from} speaks version ${String(v)} of the messages of agents, this side ${AGENT_PROTOCOL}.`,
      { hint: "Use the same version of lockstep everywhere.", fields: { from } },
    );
  }
  const checked = schema.safeParse(message);
  if (checked.success) return checked.data;
  throw notUnderstood(from, checked.error);
}
