/**
 * The messages between a launcher and the agents of a run. A job is data and travels in pieces:
 * graphs, initial values, and the places of the data. It never brings code along. Every message is
 * checked to the last field.
 */
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import { sharingShape } from "../job/index.ts";
import { type Beginning, CHANGEABLE } from "../run/index.ts";
import { eventSchema } from "../telemetry/index.ts";
import { errorSchema, notUnderstood, outcome, port } from "./checks.ts";

/**
 * The version of these messages. It changes with every change that an older side would not
 * understand.
 */
export const AGENT_PROTOCOL = 7;
export const DEFAULT_AGENT_PORT = 4100;

const MAX_WORKERS = 4096;
const rank = z.int().min(0).max(MAX_WORKERS);
const workers = z.int().min(1).max(MAX_WORKERS);
const count = z.int().min(0);
const MAX_FILES = 1000;
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

const jobFields = z.strictObject({
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
    ...sharingShape,
  }),
  /** The options that may change in a run that is resumed. */
  changes: z.array(z.enum(CHANGEABLE)).max(CHANGEABLE.length).optional(),
  /** A part of the names of shared memory. */
  group: z.string().regex(/^[\w-]{1,64}$/),
  /** The rank of this agent's first worker; its workers have consecutive ranks. */
  firstRank: rank,
  own: workers,
  /** The number of workers of all agents together. */
  workers,
  /**
   * The number of threads of each worker. Default: the cores of the machine, divided among its
   * workers.
   */
  threads: z.int().min(1).max(4096).optional(),
});

const job = jobFields.refine(
  ({ firstRank, own, workers: all }) => all % own === 0 && firstRank % own === 0 && firstRank < all,
  "has ranks that do not fit its workers",
);

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
  z.strictObject({
    kind: z.literal("addresses"),
    addresses: z.array(z.string().min(1).max(300)).min(1).max(MAX_WORKERS),
  }),
  /**
   * `alone`: another worker is lost, so a worker that has not yet met all others need not wait for
   * them.
   */
  z.strictObject({ kind: z.literal("stop"), alone: z.boolean().optional() }),
  z.strictObject({ kind: z.literal("kill") }),
]);

const reply = z.discriminatedUnion("kind", [
  /** The launcher may send this many pieces in addition to those asked for before. */
  z.strictObject({ kind: z.literal("more"), pieces: z.int().min(1).max(PIECES_AHEAD) }),
  z.strictObject({ kind: z.literal("accepted") }),
  z.strictObject({ kind: z.literal("refused"), error: errorSchema }),
  z.strictObject({ kind: z.literal("listening"), rank, port }),
  z.strictObject({ kind: z.literal("event"), event: eventSchema }),
  z.strictObject({
    kind: z.literal("failed"),
    rank,
    error: errorSchema,
    crash: z.string().max(1000).optional(),
  }),
  z.strictObject({ kind: z.literal("ended"), rank, outcome: outcome.optional() }),
]);

export type AgentJob = z.infer<typeof job>;
export type AgentRequest = z.infer<typeof request>;
export type AgentReply = z.infer<typeof reply>;

export function isPlace(path: string): boolean {
  const parts = path.split("/");
  return !parts.includes("..") && !parts.includes("") && !/[\\\0:]/.test(path);
}

/** The message in the form in which it is sent. */
export function envelope<Message extends AgentRequest | AgentReply>(message: Message): unknown {
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
