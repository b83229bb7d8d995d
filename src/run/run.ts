/**
 * A run as a user writes it: model, data, optimizer and a few numbers. It is only data and starts
 * nothing.
 */
import { z } from "zod";
import { isStoreAddress } from "../checkpoint/index.ts";
import type { DataSource } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import type { ModelDefinition } from "../nn/index.ts";
import type { Optimizer, Schedule } from "../optimizer/index.ts";
import { notAmong, type OptionKinds } from "../options.ts";
import {
  type AskedParallel,
  bytesOfText,
  checkRings,
  OFFLOADS,
  type ParallelOptions,
} from "../parallel/index.ts";

export interface RunOptions extends AskedParallel {
  readonly model: ModelDefinition;
  readonly data: DataSource;
  readonly optimizer: Optimizer;
  /** The number of samples of one step. It never depends on the number of nodes. */
  readonly batch: number;
  /** The number of optimizer steps. */
  readonly steps: number;
  /**
   * The name of the folder under `runs/`, unless `--out` names another. Default: the model's name.
   */
  readonly name?: string;
  /** How the learning rate changes over the run. Default: constant. */
  readonly schedule?: Schedule;
  /**
   * The largest global norm of the gradient; a larger gradient is scaled down to it. Default: no
   * limit.
   */
  readonly clipNorm?: number;
  /**
   * The number of equal parts that the batch is cut into; their gradients are summed in one fixed
   * order. Each part runs on one thread, and as many at once as there are threads. A multiple of
   * the threads is fastest for large models, and more parts need less memory. Default: the largest
   * of 8, 4 and 2 that leaves each part two samples or more, else 1; and 1 for models with batch
   * statistics (batch normalization).
   */
  readonly microBatches?: number;
  /**
   * Whether the weights have the same bits for any number of workers and nodes. False lets the
   * order of sums depend on them, which saves traffic between nodes if micro-batches do not divide
   * evenly. Default: true.
   */
  readonly reproducible?: boolean;
  /** Bytes of gradients that travel together between nodes. Default: chosen from measured costs. */
  readonly bucketBytes?: number;
  /**
   * Steps between two checks that no weights or optimizer state have changed by themselves, and that
   * workers that hold the same have the same bytes. With 1, nothing wrong that is found was used in
   * a committed step. 0: no checks. Default: as few as cost 1% of the time.
   */
  readonly checkReplicas?: number;
  /**
   * A worker leaves the run if its speed stays below this part of that of the others, 0 to 0.9, and
   * enough workers are left. Default: 0, so that none is excluded.
   */
  readonly excludeBelow?: number;
  /** The seed of weights, sample order and dropout. Default: 1. */
  readonly seed?: number;
  /**
   * `every`: steps between validations (default: a tenth of the run). `samples`: the most samples
   * that each looks at (default: 256).
   */
  readonly evaluate?: { readonly every?: number; readonly samples?: number };
  /**
   * Steps between checkpoints. One is also written at the end and at a stop. Default: a tenth of
   * the run.
   */
  readonly checkpointEvery?: number;
  /** How many of the newest checkpoints are kept. Default: 2. */
  readonly keepLast?: number;
  /**
   * Checkpoints whose step is a multiple of it are kept for good: a multiple of `checkpointEvery`.
   * Default: none.
   */
  readonly keepEvery?: number;
  /**
   * Where checkpoints are kept: `s3://bucket/prefix`, with the prefix for this run alone. Endpoint,
   * region and credentials come from the usual AWS_… variables of the environment of each worker.
   * Default: in the run's folder.
   */
  readonly checkpoints?: string;
  /**
   * The text to generate at the end, for models of text: its beginning, and its number of tokens.
   */
  readonly sample?: { readonly prompt?: string; readonly tokens?: number };
}

/** A checked run with its defaults filled in. */
export interface Run extends Omit<RunOptions, "parallel">, Pick<ParallelOptions, "parallel"> {
  readonly name: string;
  /** 1 if none is stated, until `settleMicroBatches` has looked at the model and the checkpoint. */
  readonly microBatches: number;
  readonly seed: number;
  readonly evaluate: { readonly every: number; readonly samples: number };
  readonly checkpointEvery: number;
  readonly keepLast: number;
  /**
   * The options as they were stated, without defaults, because some defaults depend on options that
   * the command line may override.
   */
  readonly stated: RunOptions;
}

/** The options that the command line may override. */
export interface RunOverrides {
  readonly steps?: number | undefined;
  readonly batch?: number | undefined;
  readonly seed?: number | undefined;
  readonly data?: DataSource | undefined;
  readonly microBatches?: number | undefined;
  readonly checkpointEvery?: number | undefined;
  readonly keepLast?: number | undefined;
  readonly keepEvery?: number | undefined;
  readonly checkpoints?: string | undefined;
  readonly excludeBelow?: number | undefined;
  readonly parallel?: AskedParallel["parallel"];
  readonly zero?: ParallelOptions["zero"];
  readonly recompute?: ParallelOptions["recompute"];
  readonly offload?: ParallelOptions["offload"];
  readonly buddies?: ParallelOptions["buddies"];
  readonly timetable?: ParallelOptions["timetable"];
  readonly attention?: ParallelOptions["attention"];
}

/** The one before is there if the newest is damaged. */
const DEFAULT_KEEP_LAST = 2;

const positive = z.int().min(1);
const shape: OptionKinds<RunOptions> = {
  model: z.custom<ModelDefinition>(isModel, "must be a model: gpt({…}), onnx(…), defineModel(…)"),
  data: z.custom<DataSource>(isSource, "must be a source of data: text(…), idxImages(…), csv(…)"),
  optimizer: z.custom<Optimizer>(isOptimizer, "must be an optimizer: adamw({…}), sgd({…})"),
  batch: positive,
  steps: positive,
  name: z.string().min(1).optional(),
  clipNorm: z.number().positive().optional(),
  microBatches: positive.optional(),
  reproducible: z.boolean().optional(),
  bucketBytes: positive.optional(),
  checkReplicas: z.int().min(0).optional(),
  excludeBelow: z.number().min(0).max(0.9).optional(),
  parallel: z
    .union(
      [
        z.literal("auto"),
        z.strictObject({
          data: positive.optional(),
          shard: positive.optional(),
          tensor: positive.optional(),
          context: positive.optional(),
          expert: positive.optional(),
          pipeline: positive.optional(),
        }),
      ],
      { error: 'must be "auto", or sizes of axes, as in { data: 2, shard: 2 }' },
    )
    .optional(),
  zero: z.union([z.literal(1), z.literal(2), z.literal(3)]).optional(),
  recompute: z
    .union([z.literal("blocks"), z.strictObject({ memory: z.custom<number | string>(isSize) })], {
      error: 'must be "blocks", or { memory: "2 GB" }, or { memory: BYTES }',
    })
    .optional(),
  offload: z.enum(OFFLOADS, { error: ({ input }) => notAmong(input, OFFLOADS) }).optional(),
  buddies: z.boolean().optional(),
  timetable: z.string().min(1).optional(),
  attention: z.enum(["ring", "auto"], { error: 'must be "ring" or "auto"' }).optional(),
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .optional(),
  schedule: z.looseObject({ kind: z.string() }).optional(),
  evaluate: z.strictObject({ every: positive.optional(), samples: positive.optional() }).optional(),
  checkpointEvery: positive.optional(),
  keepLast: positive.optional(),
  keepEvery: positive.optional(),
  checkpoints: z
    .string()
    .refine(isStoreAddress, "must be a place such as s3://bucket/prefix")
    .optional(),
  sample: z.strictObject({ prompt: z.string().optional(), tokens: positive.optional() }).optional(),
};
const schema = z.strictObject(shape);

/**
 * Checks a run; the default export of a run file.
 * @throws INVALID_OPTION naming every option that is wrong
 */
export function defineRun(options: RunOptions): Run {
  const checked = schema.safeParse(options);
  if (!checked.success) {
    const faults = checked.error.issues.map(
      (issue) => `${issue.path.join(".") || "the run"}: ${issue.message}`,
    );
    throw new LockstepError("INVALID_OPTION", `defineRun: ${faults.join("; ")}.`, {
      fields: { options: checked.error.issues.map((issue) => issue.path.join(".")) },
    });
  }
  const { batch, microBatches = 1, steps } = options;
  if (batch % microBatches !== 0) {
    throw new LockstepError(
      "INVALID_OPTION",
      `defineRun: a batch of ${batch} cannot be cut into ${microBatches} equal micro-batches.`,
      { hint: "Make batch a multiple of microBatches." },
    );
  }
  const tenth = Math.max(1, Math.ceil(steps / 10));
  return {
    ...options,
    parallel: options.parallel === "auto" ? undefined : options.parallel,
    name: options.name ?? options.model.name,
    microBatches,
    seed: options.seed ?? 1,
    evaluate: {
      every: options.evaluate?.every ?? tenth,
      samples: options.evaluate?.samples ?? 256,
    },
    checkpointEvery: checkpointEvery(options, tenth),
    keepLast: options.keepLast ?? DEFAULT_KEEP_LAST,
    stated: options,
  };
}

/** @throws INVALID_OPTION when no checkpoint is written at the steps that are to be kept */
function checkpointEvery(options: RunOptions, tenth: number): number {
  const { checkpointEvery: stated, keepEvery } = options;
  if (keepEvery === undefined) return stated ?? tenth;
  if (stated !== undefined && keepEvery % stated !== 0) {
    throw new LockstepError(
      "INVALID_OPTION",
      `defineRun: keepEvery is ${keepEvery}, but checkpoints are written every ${stated} steps (checkpointEvery).`,
      { hint: "Make keepEvery a multiple of checkpointEvery." },
    );
  }
  if (stated !== undefined) return stated;
  let every = Math.min(tenth, keepEvery);
  while (keepEvery % every !== 0) every -= 1;
  return every;
}

/**
 * Returns the run with options of the command line in place of its own.
 * @throws INVALID_OPTION for options that do not go together
 */
export function overrideRun(run: Run, overrides: RunOverrides): Run {
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
  const overridden = defineRun({ ...run.stated, ...Object.fromEntries(given) });
  checkRings(overridden);
  return overridden;
}

/** Whether a run file's export is a result of `defineRun`. */
export function isRun(value: unknown): value is Run {
  return z.looseObject(shape).safeParse(value).success && Reflect.has(value as object, "stated");
}

function isSize(value: unknown): boolean {
  if (typeof value !== "number" && typeof value !== "string") return false;
  try {
    return bytesOfText(value) > 0;
  } catch {
    return false;
  }
}

function isModel(value: unknown): boolean {
  return hasFunction(value, "build");
}

function isSource(value: unknown): boolean {
  return typeof value === "object" && value !== null && "kind" in value;
}

function isOptimizer(value: unknown): boolean {
  return typeof value === "object" && value !== null && "kind" in value && "options" in value;
}

function hasFunction(value: unknown, name: string): boolean {
  return (
    typeof value === "object" && value !== null && typeof Reflect.get(value, name) === "function"
  );
}
