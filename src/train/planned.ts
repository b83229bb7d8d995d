/**
 * Plans the step of a trainer from its options and the ranks that it shares steps with. Each group
 * needs a new plan.
 */
import type { Device, HostTensor } from "../engine/index.ts";
import { type Instance } from "../execute/index.ts";
import type { Graph } from "../graph/index.ts";
import { applyStrategies } from "../parallel/index.ts";
import { buildStep, GRADIENT, type StepGraph } from "../plan/index.ts";
import { evenRanges, lower, type Range, type StepProgram } from "../program/index.ts";
import { checkMemory } from "./memory.ts";
import { Pacing } from "./pacing.ts";
import { parallelOf } from "./sharing.ts";
import type { BatchFields, TrainerOptions } from "./step-types.ts";

/** What may change between two steps of a group of ranks. */
export interface Sharing {
  /** The micro-batches of each rank. */
  readonly ranges: readonly Range[];
  /** Whether gradients are exchanged while the backward pass still runs. */
  readonly overlap: boolean;
}

export interface Planned {
  /** The step of one process, before any strategy. */
  readonly step: StepGraph;
  readonly plan: StepProgram;
  readonly sharing: Sharing;
}

/** @throws INVALID_OPTION, NO_GRADIENT, OUT_OF_MEMORY */
export function planOf(options: TrainerOptions): Planned {
  const { ranks, microBatches = 1 } = options;
  // Checked first, because other checks would report more workers than micro-batches less clearly.
  parallelOf(options, true);
  const ranges = ranks?.ranges ?? evenRanges(microBatches, ranks?.group.size ?? 1);
  const sharing = { ranges, overlap: true };
  const step = inFormOf(options.engine, buildStep(options));
  const plan = lowered(options, step, sharing);
  checkMemory(plan, ranks?.group.size ?? 1);
  return { step, plan, sharing };
}

/**
 * Puts the forward and backward pass into the form in which the device runs it. Pieces that
 * strategies cut from this form give the bits of the whole.
 */
function inFormOf(engine: Device, step: StepGraph): StepGraph {
  const pass = engine.prepare(step.graphs.get(GRADIENT) as Graph);
  return { ...step, graphs: new Map(step.graphs).set(GRADIENT, pass) };
}

/** Lowers the same step again with another sharing. */
export function replan(
  options: TrainerOptions,
  { step, sharing }: Planned,
  change: Partial<Sharing>,
): Planned {
  const changed = { ...sharing, ...change };
  return { step, plan: lowered(options, step, changed), sharing: changed };
}

function lowered(
  options: TrainerOptions,
  step: StepGraph,
  { ranges, overlap }: Sharing,
): StepProgram {
  const { engine, ranks, optimizer, evaluation, evaluationSamples } = options;
  const { mesh, topology, strategies } = parallelOf(options, overlap);
  const all = [...strategies, ...(options.strategies ?? [])];
  return lower(applyStrategies(all, step, mesh), {
    ground: { mesh, topology },
    rank: ranks?.group.rank ?? 0,
    ranges,
    lanes: engine.threads,
    optimizer,
    evaluation,
    evaluationSamples,
  });
}

/** Undefined when micro-batches do not follow the speeds of ranks. */
export function pacingOf(
  { ranks }: TrainerOptions,
  { step, plan, sharing }: Planned,
): Pacing | undefined {
  if (ranks === undefined || plan.paces === undefined) return undefined;
  const { adapt = ranks.ranges === undefined } = ranks;
  return adapt ? new Pacing(ranks.group.rank, sharing.ranges, step.microBatches) : undefined;
}

/** The tensors that the fields of a batch are written into. */
export interface Fields {
  readonly batch: BatchFields;
  /** One entry for each batch size of an evaluation. */
  readonly evaluation: readonly BatchFields[];
}

export function fieldsOf(instance: Instance, { batch, evaluation }: StepProgram): Fields {
  const tensors = (refs: StepProgram["batch"]): Record<string, HostTensor> =>
    Object.fromEntries([...refs].map(([name, ref]) => [name, instance.hostTensor(ref)]));
  const { sizes = [] } = evaluation ?? {};
  return { batch: tensors(batch), evaluation: sizes.map(({ fields }) => tensors(fields)) };
}
