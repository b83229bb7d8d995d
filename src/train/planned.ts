/**
 * Plans the step of a trainer from its options and the ranks that it shares steps with. Each group
 * needs a new plan.
 */
import type { Device, HostTensor } from "../engine/index.ts";
import { type Instance } from "../execute/index.ts";
import type { Graph } from "../graph/index.ts";
import { modelAxes, replicaSize } from "../mesh/index.ts";
import { applyStrategies, checkWorkers, type Parallel } from "../parallel/index.ts";
import { buildStep, GRADIENT, type StepGraph } from "../plan/index.ts";
import { evenRanges, lower, type Range, type StepProgram } from "../program/index.ts";
import { checkDisk } from "./disk.ts";
import { checkMemory, memoryLimit } from "./memory.ts";
import { Pacing } from "./pacing.ts";
import { parallelOf, roomFor, type SharingOptions } from "./sharing.ts";
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
  /** How ranks share it, and why. */
  readonly parallel: Parallel;
  readonly plan: StepProgram;
  readonly sharing: Sharing;
}

/** The options that the plan of a step depends on. */
export type PlanOptions = Omit<TrainerOptions, "ranks"> & Pick<SharingOptions, "ranks">;

/** The step of one process. @throws INVALID_OPTION, NO_GRADIENT */
export function stepOf(options: PlanOptions): StepGraph {
  return inFormOf(options.engine, buildStep(options));
}

/**
 * @param known the step of one process, if it was built before; it is the same for any ranks
 * @throws INVALID_OPTION, NO_GRADIENT, OUT_OF_MEMORY, DISK_FULL
 */
export function planOf(options: PlanOptions, known?: StepGraph): Planned {
  const { ranks, microBatches = 1 } = options;
  // More workers than micro-batches are an error of their own, before anything that their
  // micro-batches would lead to.
  const size = ranks?.group.size ?? 1;
  const isStated = options.parallel !== undefined || options.zero !== undefined;
  if (isStated) checkWorkers(size, microBatches, options.parallel);
  const step = known ?? stepOf(options);
  const parallel = parallelOf(options, step, options);
  const sharers = Math.max(1, size / replicaSize(parallel.mesh));
  const ranges = ranks?.ranges ?? evenRanges(microBatches, sharers);
  const sharing = { ranges, overlap: true };
  const plan = lowered(options, step, parallel, sharing);
  const { memory } = roomFor(options);
  checkMemory(plan, size, Math.min(memory, memoryLimit()));
  checkDisk(plan, options.offloadFolder);
  return { step, parallel, plan, sharing };
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
  { step, parallel: before, sharing }: Planned,
  change: Partial<Sharing>,
): Planned {
  const changed = { ...sharing, ...change };
  const { reason, predicted } = before;
  // What was chosen stays.
  const parallel = {
    ...parallelOf(options, step, before.stated, changed.overlap),
    reason,
    predicted,
  };
  return { step, parallel, plan: lowered(options, step, parallel, changed), sharing: changed };
}

/** The program of another rank of the same group. */
export function programOf(
  options: TrainerOptions,
  { step, parallel, sharing }: Planned,
  rank: number,
): StepProgram {
  return lowered(options, step, parallel, sharing, rank);
}

function lowered(
  options: PlanOptions,
  step: StepGraph,
  { mesh, topology, strategies }: Parallel,
  { ranges }: Sharing,
  rank = options.ranks?.group.rank ?? 0,
): StepProgram {
  const { engine, optimizer, evaluation, evaluationSamples } = options;
  const all = [...strategies, ...(options.strategies ?? [])];
  return lower(applyStrategies(all, step, mesh), {
    ground: { mesh, topology },
    rank,
    ranges,
    lanes: engine.threads,
    optimizer,
    evaluation,
    evaluationSamples,
  });
}

/** Undefined when micro-batches do not follow the speeds of ranks. */
export function pacingOf(
  { ranks, excludeBelow }: TrainerOptions,
  { step, plan, sharing, parallel }: Planned,
): Pacing | undefined {
  if (ranks === undefined || plan.paces === undefined) return undefined;
  // Those that divide a micro-batch have the same ones, however fast each of them is.
  if (modelAxes(parallel.mesh).length > 0) return undefined;
  const { adapt = ranks.ranges === undefined } = ranks;
  if (!adapt) return undefined;
  return new Pacing(ranks.group.rank, sharing.ranges, step.microBatches, excludeBelow);
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
