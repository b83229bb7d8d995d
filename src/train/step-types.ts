/** What a trainer is made of, what a step is asked for, and what it gives. */
import type { Device, HostTensor } from "../engine/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer, Schedule } from "../optimizer/index.ts";
import { anything, type OptionKinds } from "../options.ts";
import type { Positions } from "./keys.ts";
import type { SharingOptions } from "./sharing.ts";

export interface TrainerOptions extends SharingOptions {
  readonly engine: Device;
  /** Built to train, for one micro-batch. */
  readonly model: Model;
  /** The same model built for evaluation, for one batch of it. */
  readonly evaluation?: Model | undefined;
  /** How many samples an evaluation looks at; those of one batch unless told. */
  readonly evaluationSamples?: number | undefined;
  readonly optimizer: Optimizer;
  /** Default: constant. */
  readonly schedule?: Schedule | undefined;
  /** Steps of the run, for schedules that end with it. */
  readonly steps?: number | undefined;
  /** The largest global norm of the gradient. Default: no limit. */
  readonly clip?: number | undefined;
  /** Of initial values and random layers. Default: 0. */
  readonly seed?: number | undefined;
  /** Where what is offloaded lies: a folder of a disk, which exists. */
  readonly offloadFolder?: string | undefined;
}

/** What there is to give; run files are checked by `defineRun`, and most of this is made by the house. */
export const TRAINER_OPTIONS: OptionKinds<TrainerOptions> = {
  engine: anything,
  model: anything,
  evaluation: anything.optional(),
  evaluationSamples: anything.optional(),
  optimizer: anything,
  schedule: anything.optional(),
  steps: anything.optional(),
  clip: anything.optional(),
  seed: anything.optional(),
  microBatches: anything.optional(),
  ranks: anything.optional(),
  reproducible: anything.optional(),
  bucketBytes: anything.optional(),
  parallel: anything.optional(),
  zero: anything.optional(),
  recompute: anything.optional(),
  offload: anything.optional(),
  offloadFolder: anything.optional(),
  strategies: anything.optional(),
};

/**
 * Tensors of the batch by input name; the leading dim is all samples of this rank, micro-batch
 * after micro-batch.
 */
export type BatchFields = Readonly<Record<string, HostTensor>>;
export type FillBatch = (into: BatchFields) => void | Promise<void>;

export interface StepRequest {
  /**
   * The samples of this step in the global order: random layers depend on them, not on the number
   * of workers.
   */
  readonly positions: Positions;
  readonly fill: FillBatch;
  /** Asks all ranks to stop after this step. */
  readonly stop?: boolean;
  /** Ends the step before it is committed. */
  readonly signal?: AbortSignal;
}

export interface StepResult {
  /** Counted from 0. */
  readonly step: number;
  /** Of the whole batch. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly learningRate: number;
  /**
   * The batch holds no label that counts: loss and gradient have no value and are given as 0, and
   * the step has changed nothing.
   */
  readonly isEmpty: boolean;
  /** Whether some rank asked for a stop: the same on all. */
  readonly stop: boolean;
  /** Why ranks share micro-batches in another way from the next step on. */
  readonly shared?: string;
}
