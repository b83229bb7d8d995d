/**
 * Checks events that come from another process or machine, to the last field, before they are shown
 * or stored.
 */
import { z } from "zod";
import type { History, NetworkFacts, Report, RunEvent } from "./events.ts";

/** The most characters of a sentence, and (`MAX_SAMPLE`) of a text that a model has generated. */
const MAX_TEXT = 2 ** 14;
const MAX_SAMPLE = 2 ** 19;
const MAX_LIST = 4096;

const text = z.string().max(MAX_TEXT);
const texts = z.array(text).max(MAX_LIST);
const count = z.int().min(0);
/** Any number. JSON writes null for a number that is not finite. */
const figure = z
  .custom<number | null>((value) => typeof value === "number" || value === null, "must be a number")
  .transform((value) => value ?? Number.NaN);
const orNull = z.number().nullable();

/** A schema for each field of a type. */
type Fields<T> = { readonly [Key in Exclude<keyof T, "type">]-?: z.ZodType };

const network = {
  machines: count,
  messageUs: figure,
  bytesPerSecond: figure,
  buckets: count,
} satisfies Fields<NetworkFacts>;

const history = {
  workersLost: count,
  workersJoined: count,
  generations: count,
  stepsRepeated: count,
  recoverySeconds: z.array(figure).max(MAX_LIST),
} satisfies Fields<History>;

const report = {
  name: text,
  steps: count,
  samples: count,
  trainLoss: figure,
  validationLoss: orNull,
  tokensPerSecond: orNull,
  samplesPerSecond: figure,
  parameters: count,
  seconds: figure,
  seed: count,
  weightsSha256: z.string().regex(/^[0-9a-f]{64}$/),
  engine: text,
  workers: count,
  threads: count,
  batch: count,
  bitsPerByte: z.strictObject({ model: figure, bigram: figure, gzip: figure }).nullable(),
  sample: z.string().max(MAX_SAMPLE).nullable(),
  modelBatch: z.union([count, z.literal("any")]),
  notes: texts,
  history: z.strictObject({ ...history, samplesCommitted: count, samplesRepeated: count }),
} satisfies Fields<Report>;

const FIELDS: { readonly [Type in RunEvent["type"]]: Fields<Extract<RunEvent, { type: Type }>> } = {
  started: {
    name: text,
    out: text,
    model: text,
    trains: text.optional(),
    parameters: count,
    data: text,
    engine: text,
    workers: count,
    threads: count,
    sharing: text.optional(),
    shares: z.array(count).max(MAX_LIST),
    network: z.strictObject(network).optional(),
    steps: count,
    batch: count,
    firstStep: count,
    seconds: figure,
    notes: texts,
  },
  changed: {
    step: count,
    changes: z.array(z.strictObject({ name: text, before: text, now: text })).max(MAX_LIST),
  },
  notice: { text },
  membership: { about: text, worker: count.optional(), text },
  generation: { step: count, workers: count, shares: z.array(count).max(MAX_LIST) },
  repeated: { step: count },
  healed: { step: count, rank: count, from: count, since: count, isExact: z.boolean() },
  step: {
    step: count,
    steps: count,
    loss: figure,
    gradientNorm: figure,
    learningRate: figure,
    samplesPerSecond: figure,
    tokensPerSecond: figure.optional(),
    secondsLeft: figure,
  },
  shared: { step: count, reason: text },
  evaluated: {
    step: count,
    loss: figure,
    measures: z
      .record(text, figure)
      .refine((all) => Object.keys(all).length <= MAX_LIST, "has too many entries")
      .optional(),
  },
  checkpoint: { step: count, path: text },
  finishing: {},
  stopping: {},
  stopped: { step: count, steps: count, out: text, files: texts },
  failed: { step: count, code: text, out: text, files: texts },
  complete: { step: count, steps: count, out: text },
  finished: { report: z.strictObject(report), files: texts, out: text },
};

const schemas = Object.entries(FIELDS).map(([type, fields]) =>
  z.strictObject({ type: z.literal(type), ...fields }),
) as unknown as [z.ZodObject<{ type: z.ZodLiteral<string> }>];

/** The schema of one event, for messages that carry one. */
export const eventSchema = z.discriminatedUnion("type", schemas) as unknown as z.ZodType<RunEvent>;
