/** What a trainer is made of. */
import type { Engine } from "../engine/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer, Schedule } from "../optimizer/index.ts";
import { anything, type OptionKinds } from "../options.ts";
import type { SharingOptions } from "./sharing.ts";

export interface TrainerOptions extends SharingOptions {
  readonly engine: Engine;
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
  /** Names of the buffers for other processes: `PREFIX-parameters`. Without it they are private. */
  readonly shareAs?: string | undefined;
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
  shareAs: anything.optional(),
  microBatches: anything.optional(),
  ranks: anything.optional(),
  reproducible: anything.optional(),
  bucketBytes: anything.optional(),
};
