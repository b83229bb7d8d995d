/** What a trainer makes of its options and the ranks that it shares steps with: anew for each group. */
import type { HostTensor } from "../engine/index.ts";
import {
  type Instance,
  planTraining,
  type TrainingPlan,
  type TrainingShare,
} from "../program/index.ts";
import { Pacing } from "./pacing.ts";
import { shareOf } from "./sharing.ts";
import type { BatchFields, TrainerOptions } from "./step-types.ts";

export interface Planned {
  readonly plan: TrainingPlan;
  /** Undefined for a rank that is alone. */
  readonly share: TrainingShare | undefined;
}

export function planOf(options: TrainerOptions, share = shareOf(options)): Planned {
  return { plan: planTraining({ ...options, lanes: options.engine.threads, share }), share };
}

/** Undefined where ranges do not follow the speeds of ranks. */
export function pacingOf(options: TrainerOptions, { share }: Planned): Pacing | undefined {
  const { ranges, adapt = ranges === undefined } = options.ranks ?? {};
  if (share === undefined || !adapt) return undefined;
  return new Pacing(share.rank, share.ranges, options.microBatches ?? 1);
}

/** Where the fields of a batch are filled in. */
export interface Fields {
  readonly batch: BatchFields;
  /** For each size of an evaluation. */
  readonly evaluation: readonly BatchFields[];
}

export function fieldsOf(instance: Instance, { batch, evaluation }: TrainingPlan): Fields {
  const tensors = (refs: TrainingPlan["batch"]): Record<string, HostTensor> =>
    Object.fromEntries([...refs].map(([name, ref]) => [name, instance.hostTensor(ref)]));
  const { sizes = [] } = evaluation ?? {};
  return { batch: tensors(batch), evaluation: sizes.map(({ fields }) => tensors(fields)) };
}
