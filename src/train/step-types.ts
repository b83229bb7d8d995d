/** The types of a trainer: its options, the request for a step, the result of a step. */
import type { Device, HostTensor } from "../engine/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer, Schedule } from "../optimizer/index.ts";
import { anything, type OptionKinds } from "../options.ts";
import type { Positions } from "./keys.ts";
import type { Ranks, SharingOptions } from "./sharing.ts";

/** Bytes of the state of a rank that were wrong, and are right again. */
export interface Healed {
  /** The number of committed steps. */
  readonly step: number;
  readonly rank: number;
  /** The rank whose bytes it has now. */
  readonly from: number;
  /** The number of committed steps when all bytes were found right for the last time. */
  readonly since: number;
  /** Whether no committed step was computed with the wrong bytes. */
  readonly isExact: boolean;
}

export interface TrainerOptions extends SharingOptions {
  /** The ranks that share the steps. Default: this one makes them alone. */
  readonly ranks?: Ranks | undefined;
  readonly engine: Device;
  /** The model built for training, for one micro-batch. */
  readonly model: Model;
  /** The same model built for evaluation, for one batch. */
  readonly evaluation?: Model | undefined;
  /** The number of samples that an evaluation looks at. Default: those of one batch. */
  readonly evaluationSamples?: number | undefined;
  readonly optimizer: Optimizer;
  /** Default: constant. */
  readonly schedule?: Schedule | undefined;
  /** The number of steps of the run, for schedules that end with it. */
  readonly steps?: number | undefined;
  /** The largest global norm of the gradient. Default: no limit. */
  readonly clip?: number | undefined;
  /** The seed of initial values and random layers. Default: 0. */
  readonly seed?: number | undefined;
  /**
   * Steps between two checks that the state has not changed by itself and is the same on all ranks
   * that hold it; 0: there are none. Default: as few as cost 1% of the time.
   */
  readonly checkReplicas?: number | undefined;
  /** Is told of bytes that were wrong, on all ranks. */
  readonly onHealed?: ((healed: Healed) => void) | undefined;
  /** Where what is offloaded lies: a folder of a disk, which exists. */
  readonly offloadFolder?: string | undefined;
}

/**
 * The options that exist. Their values are checked by `defineRun`, and most of them are made inside
 * Lockstep.
 */
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
  checkReplicas: anything.optional(),
  excludeBelow: anything.optional(),
  onHealed: anything.optional(),
  buddies: anything.optional(),
  timetable: anything.optional(),
  attention: anything.optional(),
  offloadFolder: anything.optional(),
  strategies: anything.optional(),
};

/**
 * The tensors of the batch by input name. The leading dim has all samples of this rank, micro-batch
 * after micro-batch.
 */
export type BatchFields = Readonly<Record<string, HostTensor>>;
export type FillBatch = (into: BatchFields) => void | Promise<void>;

export interface StepRequest {
  /**
   * The samples of this step in the global order. Random layers depend on them, and not on the
   * number of workers.
   */
  readonly positions: Positions;
  readonly fill: FillBatch;
  /** Asks all ranks to stop after this step. */
  readonly stop?: boolean;
  /** Asks all ranks to leave their group after this step. */
  readonly regroup?: boolean;
  /** Aborting it ends the step before it is committed. */
  readonly signal?: AbortSignal;
}

/** A step that all ranks have committed. */
export interface CommittedStep {
  /** Counted from 0. */
  readonly step: number;
  /** The loss of the whole batch. */
  readonly loss: number;
  /** The global norm of the gradient, before clipping. */
  readonly gradientNorm: number;
  readonly learningRate: number;
  /**
   * Whether the batch contains no label that counts. Loss and gradient then have no value and are
   * given as 0, and the step changed nothing.
   */
  readonly isEmpty: boolean;
}

export interface StepResult extends CommittedStep {
  /** Whether a rank asked for a stop; the same on all ranks. */
  readonly stop: boolean;
  /** Whether a rank asked for another group; the same on all ranks. */
  readonly regroup: boolean;
  /** Why the micro-batches are shared out differently from the next step on. */
  readonly shared?: string;
  /** The ranks that are slower than the run allows (`excludeBelow`); the same on all ranks. */
  readonly tooSlow?: readonly TooSlow[];
}

export interface TooSlow {
  readonly rank: number;
  /** Follows "because": its speed, in words. */
  readonly why: string;
}
