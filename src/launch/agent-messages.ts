/**
 * What a launcher and the agents of a run tell each other. A job is data, and travels in pieces: graphs, first values, and where data
 * lies. It never brings code along. Everything that comes is checked to the last field.
 */
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import { sharingShape } from "../job/index.ts";
import { eventSchema } from "../telemetry/index.ts";
import { type Beginning, CHANGEABLE } from "../train/index.ts";
import { errorSchema, notUnderstood, outcome, port } from "./checks.ts";

/** Of these messages: a change that an older side would not understand makes it another. */
export const AGENT_PROTOCOL = 6;
export const DEFAULT_AGENT_PORT = 4100;

const MAX_WORKERS = 4096;
const rank = z.int().min(0).max(MAX_WORKERS);
const workers = z.int().min(1).max(MAX_WORKERS);
const count = z.int().min(0);
const MAX_FILES = 1000;
/** Of the files of a job in one message, before it is text. */
export const PIECE_BYTES = 2 ** 19;
/** Pieces that a launcher may send ahead of what the agent has written. */
export const PIECES_AHEAD = 8;

/** Below the agent's folder, and written alike on all systems. */
const place = z
  .string()
  .min(1)
  .max(4096)
  .refine(isPlace, "must be a path below the folder, with / and without ..");

const jobFields = z.strictObject({
  kind: z.literal("job"),
  /** For people. */
  name: z.string().min(1).max(1000),
  /** Of the job, in the order in which their pieces come: names and bytes. */
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
    ...sharingShape,
  }),
  /** What may be another than before in a run that goes on. */
  changes: z.array(z.enum(CHANGEABLE)).max(CHANGEABLE.length).optional(),
  /** A part of names in shared memory. */
  group: z.string().regex(/^[\w-]{1,64}$/),
  /** This agent's workers have the ranks from here on. */
  firstRank: rank,
  own: workers,
  /** Of all agents together. */
  workers,
  /** Of each worker; the machine's cores, divided, unless told. */
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
  /** `alone`: another worker is lost, so that one that has not met all others yet has nothing to wait for. */
  z.strictObject({ kind: z.literal("stop"), alone: z.boolean().optional() }),
  z.strictObject({ kind: z.literal("kill") }),
]);

const reply = z.discriminatedUnion("kind", [
  /** So many pieces may be sent beside those before. */
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

/** As it goes over the line. */
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
