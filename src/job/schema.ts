/** The schema of `job.json`, checked to the last field: every text, list and number has a bound. */
import { z } from "zod";
import { type ErrorCode, LockstepError } from "../errors.ts";
import type { Plain } from "./plain.ts";

/** The version of the format; `version` says which lockstep wrote the file. */
export const JOB_FORMAT = 1;

export const JOB_FILE = "job.json";
export const VALUES_FILE = "values.safetensors";

export const MAX_HEAD_BYTES = 2 ** 26;
const MAX_NAME = 1000;
const MAX_TEXT = 2 ** 17;
const MAX_LIST = 2 ** 17;
const MAX_FILES = 1000;
const MAX_BATCH = 2 ** 31;

const name = z.string().max(MAX_NAME);
const text = z.string().max(MAX_TEXT);
const count = z.int().min(1);
const plain = z.custom<Plain>((value) => value !== undefined, "is missing");
const options = z.record(name, plain);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, "must be 64 hexadecimal digits");
/** The name of a file in the job's folder. */
const FILE_NAME = /^[a-z0-9][a-z0-9-]{0,60}\.(?:onnx|safetensors)$/;
const fileName = z.string().regex(FILE_NAME, "must be the name of a file of a job");

export function isFileOfJobs(name: string): boolean {
  return name === JOB_FILE || FILE_NAME.test(name);
}

/** How workers share a step, what they compute again, and what they keep on disk or twice. */
export const sharingShape = {
  parallel: z
    .union([
      z.literal("auto"),
      z.strictObject({
        data: count.optional(),
        shard: count.optional(),
        tensor: count.optional(),
        context: count.optional(),
        expert: count.optional(),
        pipeline: count.optional(),
      }),
    ])
    .optional(),
  zero: z.union([z.literal(1), z.literal(2), z.literal(3)]).optional(),
  recompute: z
    .union([z.literal("blocks"), z.strictObject({ memory: z.union([count, name]) })])
    .optional(),
  offload: z.literal("disk").optional(),
  buddies: z.boolean().optional(),
  timetable: text.min(1).optional(),
  attention: z.enum(["ring", "auto"]).optional(),
};

const run = z.strictObject({
  batch: count.max(MAX_BATCH),
  microBatches: count.max(MAX_BATCH),
  steps: count,
  seed: z.int().min(0),
  schedule: options.optional(),
  clipNorm: z.number().optional(),
  reproducible: z.boolean().optional(),
  bucketBytes: count.optional(),
  checkReplicas: z.int().min(0).optional(),
  excludeBelow: z.number().min(0).max(0.9).optional(),
  ...sharingShape,
  evaluate: z.strictObject({ every: count.optional(), samples: count.optional() }).optional(),
  checkpointEvery: count.optional(),
  keepLast: count.optional(),
  keepEvery: count.optional(),
  checkpoints: text.optional(),
  sample: z
    .strictObject({ prompt: text.optional(), tokens: count.max(2 ** 24).optional() })
    .optional(),
});

const initial = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("zeros") }),
  z.strictObject({ kind: z.literal("ones") }),
  z.strictObject({ kind: z.literal("constant"), value: z.number() }),
  z.strictObject({
    kind: z.literal("normal"),
    standardDeviation: z.number(),
    mean: z.number().optional(),
  }),
  z.strictObject({ kind: z.literal("uniform"), low: z.number(), high: z.number() }),
  /** `tensor` is the name of the tensor among the job's values. */
  z.strictObject({ kind: z.literal("tensor"), tensor: name }),
]);

const weight = { name, type: name, initial };
const parameter = z.strictObject({
  ...weight,
  decay: z.boolean(),
  stored: z
    .strictObject({
      transposed: z.boolean().optional(),
      shape: z.array(z.int().min(0)).max(64).optional(),
      ties: z.array(name).max(MAX_LIST).optional(),
    })
    .optional(),
});
const state = z.strictObject({ ...weight, next: name });
const expectation = z.strictObject({
  value: name,
  range: z.strictObject({
    whole: z.boolean(),
    low: z.number(),
    high: z.number(),
    except: z.array(z.number()).max(MAX_LIST),
  }),
});

/** What a file says of how devices share the model. */
const devices = z.strictObject({
  file: text,
  configurations: z
    .array(
      z.strictObject({
        name,
        devices: count,
        stages: z.int().min(0).max(MAX_LIST),
        stageOf: z.record(name, z.int().min(0).max(MAX_LIST)),
        parameters: z.record(
          name,
          z.strictObject({
            parts: count,
            dim: z.int().min(0).max(64),
            sections: z.array(count).max(MAX_LIST).optional(),
          }),
        ),
      }),
    )
    .max(MAX_FILES),
});

/** What is known of a graph besides its nodes. Several builds of a model share it. */
const form = z.strictObject({
  batch: z.array(name).max(MAX_LIST),
  parameters: z.array(parameter).max(MAX_LIST),
  states: z.array(state).max(MAX_LIST),
  randomKey: name.optional(),
  expectations: z.array(expectation).max(MAX_LIST),
  loss: name,
  outputs: z.record(name, name),
  notes: z.array(text).max(MAX_LIST),
  devices: devices.optional(),
});

const asked = {
  batch: count.max(MAX_BATCH),
  mode: z.enum(["train", "eval"]),
  exported: z.boolean(),
};
const build = z.union([
  z.strictObject({ ...asked, graph: fileName, form: z.int().min(0) }),
  /** The build failed with this error. */
  z.strictObject({
    ...asked,
    fails: z.strictObject({
      code: z.custom<ErrorCode>((code) => typeof code === "string" && /^[A-Z_]{1,40}$/.test(code)),
      message: text,
      hint: text.optional(),
    }),
  }),
]);

export const headSchema = z.strictObject({
  lockstep: z.literal("job"),
  format: z.literal(JOB_FORMAT),
  version: name,
  name: name.min(1),
  run,
  optimizer: z.strictObject({ kind: name, options }),
  data: z.strictObject({
    /** The folder that the source's places start from, relative to a data root. */
    folder: z.string().max(4096),
    source: z.looseObject({ kind: name }),
    /** The fingerprint of the data when the job was made; absent if the data was not there. */
    holds: z.strictObject({ data: name, tokenizer: name.optional() }).optional(),
  }),
  model: z.strictObject({
    name,
    trains: text.optional(),
    forms: z.array(form).max(MAX_FILES),
    builds: z.array(build).min(1).max(MAX_FILES),
  }),
  files: z
    .record(fileName, z.strictObject({ bytes: z.int().min(0), sha256 }))
    .refine((files) => Object.keys(files).length <= MAX_FILES, "has too many entries"),
  /** The SHA-256 of this file with zeros in place of these digits. */
  sha256,
});

export type JobHead = z.infer<typeof headSchema>;
export type JobForm = JobHead["model"]["forms"][number];
export type JobBuild = JobHead["model"]["builds"][number];
export type JobInitial = z.infer<typeof initial>;

/** Checks the content of `job.json`. Throws JOB_VERSION or JOB. */
export function checkHead(value: unknown, version: string): JobHead {
  const said = (typeof value === "object" && value !== null ? value : {}) as {
    readonly lockstep?: unknown;
    readonly format?: unknown;
    readonly version?: unknown;
  };
  if (said.lockstep !== "job") {
    throw new LockstepError("JOB", `${JOB_FILE} is not the head of a job.`, {
      hint: "`lockstep job train.ts --out DIR` makes the folder of a job.",
    });
  }
  if (said.format !== JOB_FORMAT || said.version !== version) {
    const made = String(said.version).slice(0, MAX_NAME);
    throw new LockstepError(
      "JOB_VERSION",
      `The job was made by lockstep ${made}, but this is lockstep ${version}.`,
      {
        hint: "Use the same version of lockstep everywhere, or make the job again.",
        fields: { made, version },
      },
    );
  }
  const checked = headSchema.safeParse(value);
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  const place = issue?.path.join(".").slice(0, 200) ?? "";
  throw new LockstepError("JOB", `${JOB_FILE}: ${place}: ${issue?.message.slice(0, 500) ?? ""}.`);
}
