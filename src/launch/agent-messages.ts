/**
 * What a launcher and the agents of a run tell each other. A job is data: it names a run file by its place and its
 * content, and never brings code along. Everything that comes is checked to the last field.
 */
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import type { RunEvent } from "../telemetry/index.ts";
import { type Beginning, CHANGEABLE, type TrainResult } from "../train/index.ts";

/** Of these messages: a change that an older side would not understand makes it another. */
export const AGENT_PROTOCOL = 3;
export const DEFAULT_AGENT_PORT = 4100;

const MAX_WORKERS = 4096;
const rank = z.int().min(0).max(MAX_WORKERS);
const workers = z.int().min(1).max(MAX_WORKERS);
const count = z.int().min(0);

/** Below the agent's folder, and written alike on all systems. */
const place = z
  .string()
  .min(1)
  .max(4096)
  .refine(isPlace, "must be a path below the folder, with / and without ..");

const job = z.strictObject({
  kind: z.literal("job"),
  file: place,
  /** Of the run file, in hexadecimal digits. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  out: place,
  beginning: z.enum(["new", "anew", "resume"] satisfies Beginning[]),
  overrides: z.strictObject({
    steps: count.optional(),
    batch: count.optional(),
    seed: count.optional(),
  }),
  /** What may be another than before in a run that goes on. */
  changes: z.array(z.enum(CHANGEABLE)).max(CHANGEABLE.length).optional(),
  group: z.string().min(1).max(200),
  /** This agent's workers have the ranks from here on. */
  firstRank: rank,
  own: workers,
  /** Of all agents together. */
  workers,
  /** Of each worker; the machine's cores, divided, unless told. */
  threads: z.int().min(1).max(4096).optional(),
});

const request = z.discriminatedUnion("kind", [
  job,
  z.strictObject({
    kind: z.literal("addresses"),
    addresses: z.array(z.string().max(300)).max(MAX_WORKERS),
  }),
  z.strictObject({ kind: z.literal("stop") }),
  z.strictObject({ kind: z.literal("kill") }),
]);

const error = z.strictObject({
  code: z.custom<LockstepError["code"]>((value) => typeof value === "string").optional(),
  text: z.string(),
  fields: z.record(
    z.string(),
    z.union([
      z.string(),
      z.number(),
      z.boolean(),
      z.array(z.union([z.string(), z.number()])).readonly(),
      z.null().transform(() => Number.NaN), // JSON has no other word for it
    ]),
  ),
});

const reply = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("accepted") }),
  z.strictObject({ kind: z.literal("refused"), error }),
  z.strictObject({ kind: z.literal("listening"), rank, port: z.int().min(1).max(65535) }),
  z.strictObject({
    kind: z.literal("event"),
    event: z.custom<RunEvent>(
      (value) => typeof value === "object" && value !== null && "type" in value,
    ),
  }),
  z.strictObject({ kind: z.literal("failed"), rank, error, crash: z.string().optional() }),
  z.strictObject({
    kind: z.literal("ended"),
    rank,
    outcome: z
      .enum(["finished", "stopped", "followed", "complete"] satisfies TrainResult["outcome"][])
      .optional(),
  }),
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
  const [issue] = checked.error.issues;
  throw new LockstepError(
    "PROTOCOL",
    `${from} sent a message that is not understood: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}.`,
    { hint: "Use the same version of lockstep everywhere.", fields: { from } },
  );
}
