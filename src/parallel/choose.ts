/**
 * Chooses how a step is divided among the ranks of a run: the mesh, and the strategies that rewrite
 * the step for it.
 */
import { LockstepError } from "../errors.ts";
import { createMesh, type Mesh, PIPELINE, regularTopology, type Topology } from "../mesh/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  DEFAULT_SCHEDULE,
  type ReduceTask,
  type StepGraph,
  stageRanks,
  stepFacts,
} from "../plan/index.ts";
import { type BucketOptions, buckets } from "./buckets.ts";
import { buddies, buddiesOf } from "./buddies.ts";
import { chooseByCost, comparison } from "./by-cost.ts";
import { nameOf, statedOf } from "./by-cost-words.ts";
import { context } from "./context.ts";
import type { Machine } from "./cost.ts";
import { data } from "./data.ts";
import { devicesTold } from "./devices.ts";
import { type DividedWay, DividedWays } from "./divided-ways.ts";
import { experts } from "./experts.ts";
import { expertNames } from "./experts-of.ts";
import { type Offload, offload } from "./offload.ts";
import { pipeline } from "./pipeline.ts";
import { type Recompute, recompute } from "./recompute.ts";
import { type Attention, attentionAsWritten, ringsTold } from "./rings.ts";
import { checkPipeline, orderOf, type Sizes, statedSizes } from "./sizes.ts";
import type { Strategy } from "./strategy.ts";
import { tensor } from "./tensor.ts";
import type { CostOptions, Priced } from "./ways.ts";
import type { Axes } from "./workers.ts";
import { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";

/** The options of parallelism that a user may set. */
export interface ParallelOptions {
  /**
   * The sizes of the axes; their product is the number of workers. `data` replicates the whole
   * model, `shard` shards parameters, gradients and optimizer state. With both, the model is
   * sharded within a group of workers and replicated across groups (hybrid). `tensor` divides the
   * matrices of the model, and the work of each micro-batch. `context` cuts each sequence: a worker
   * has all parameters, and computes a part of the tokens. `expert` gives each worker some of the
   * experts of each mixture, to which tokens are sent, and a part of the samples. `pipeline` gives each worker some of its
   * layers, which it computes for all micro-batches.
   */
  readonly parallel?: Axes | undefined;
  /**
   * What is sharded: 1: the optimizer state; 2: the gradients, too; 3: the parameters, too.
   * Default: 3 if `shard` is given.
   */
  readonly zero?: 1 | 2 | 3 | undefined;
  /**
   * Which activations are computed again in the backward pass instead of being kept: those of all
   * blocks of the model, or of as few as let the activations of a micro-batch fit the given memory.
   * Each micro-batch that runs (one per thread) takes that much. It changes no bits.
   */
  readonly recompute?: Recompute | undefined;
  /**
   * `disk`: the optimizer's state lies in mapped files of the run folder's disk, and with ZeRO-3
   * the parameters, too. It changes no bits.
   */
  readonly offload?: Offload | undefined;
  /**
   * Whether what the workers of one machine alone hold (`shard` over several machines) is held and
   * updated by workers of another machine, too, so that the run goes on if the machine is lost. It
   * changes no bits. Default: true.
   */
  readonly buddies?: boolean | undefined;
  /**
   * Which stages the workers of a pipeline have, and in which order they compute parts of
   * micro-batches: `gpipe`, `1f1b`, `zb-h1` (`zb-h1+2`), `interleaved` (`interleaved-3`), `zb-v`
   * (`timetableOf`), or the timetable as text (`parseTimetable`). It changes no bits. Default:
   * `zb-h1`, and `1f1b` with `recompute`.
   */
  readonly timetable?: string | undefined;
  /**
   * `ring`: keys and values of attention go round the workers that divide sequences, and none has
   * all of them. Default: `auto`, by heads or by queries, whatever is predicted to be faster.
   */
  readonly attention?: Attention | undefined;
}

/** The same as a user states them: `auto` is to state no axes. */
export interface AskedParallel extends Omit<ParallelOptions, "parallel"> {
  readonly parallel?: Axes | "auto" | undefined;
}

/** The options of parallelism, without others beside them. */
export function statedIn<Sizes extends AskedParallel["parallel"]>(
  options: Omit<AskedParallel, "parallel"> & { readonly parallel?: Sizes },
) {
  const { parallel, zero, recompute: again, offload: away, buddies: doubled, timetable } = options;
  const stated = { parallel, zero, recompute: again, offload: away, buddies: doubled, timetable };
  return { ...stated, attention: options.attention };
}

/** What the choice is made from where none is stated. */
export interface ChooseFrom {
  /** Of one process, before any strategy. */
  readonly step: StepGraph;
  readonly optimizer: Optimizer;
  /** The same on all ranks, so that all choose the same. */
  readonly machine: Omit<Machine, "topology" | "bucketBytes" | "isOffloaded" | "hasBuddies">;
  /**
   * Whether workers divide the model only where no other way fits, though it may be faster: those that
   * come and go do, because what one of them holds alone is lost with it. Default: false.
   */
  readonly dividesOnlyIfNeeded?: boolean | undefined;
}

export interface ChooseOptions extends ParallelOptions, ChooseFrom {
  readonly topology: Topology;
  /** How sums over ranks are combined. Default: `tree`. */
  readonly combination?: ReduceTask["combination"] | undefined;
  /**
   * Bucketing of gradients that are exchanged between nodes or reduced to the ranks that own their
   * shards.
   */
  readonly buckets?: BucketOptions | undefined;
}

export interface Parallel {
  readonly mesh: Mesh;
  readonly topology: Topology;
  readonly strategies: readonly Strategy[];
  /** The reason for the choice, in a sentence for people. */
  readonly reason: string;
  /** The choice in the words of a run. */
  readonly stated: ParallelOptions;
  /** What was predicted of the ways that there are; undefined where the user has stated one. */
  readonly predicted: (() => readonly Prediction[]) | undefined;
}

/** One of the ways to share the step. */
export interface Prediction extends Pick<Priced, "cost" | "need"> {
  readonly name: string;
  readonly isChosen: boolean;
  readonly fits: boolean;
}

/** The size of a bucket in bytes if none is given. */
const BUCKET_BYTES = 2 ** 22;

/**
 * As stated; and if neither `parallel` nor `zero` is, by predicted costs: the fastest way that fits
 * the memory of a rank.
 * @throws INVALID_OPTION; OUT_OF_MEMORY where no way fits
 */
export function chooseParallel(options: ChooseOptions): Parallel {
  const chosen = choose(options);
  const sizeOf = (axis: string) => chosen.mesh.axes.find(({ name }) => name === axis)?.size ?? 1;
  const ranks = sizeOf(PIPELINE);
  const { timetable = DEFAULT_SCHEDULE } = chosen.stated;
  const stages = ranks === 1 ? 1 : stageRanks(timetable, ranks).length;
  const { step } = options;
  const sizes = { tensor: sizeOf("tensor"), expert: sizeOf("expert"), stages };
  const experts = sizes.expert > 1 ? expertNames(step) : new Set<string>();
  const told = [
    ...devicesTold(step.devices, { ...sizes, experts }),
    ...ringsTold(step, options.attention, sizeOf("context")),
  ];
  return told.length === 0 ? chosen : { ...chosen, reason: [chosen.reason, ...told].join(" ") };
}

function choose(options: ChooseOptions): Parallel {
  const topology = regularTopology(options.topology);
  if (options.parallel !== undefined || options.zero !== undefined) {
    return sharedAs(statedIn(options), options);
  }
  const { bucketBytes = BUCKET_BYTES } = options.buckets ?? {};
  const isOffloaded = options.offload !== undefined;
  const hasBuddies = options.buddies !== false;
  const machine: Machine = { ...options.machine, topology, bucketBytes, isOffloaded, hasBuddies };
  const from = costOptionsOf(options, machine);
  const ways = dividedWays(options, machine, from);
  const chosen = chooseByCost({ ...from, divided: (below) => ways.find(below) });
  const stated = statedOf(chosen, options);
  const rowOf = (way: Priced): Prediction => {
    const name = nameOf(way, machine);
    const isChosen = name === nameOf(chosen, machine);
    return { name, cost: way.cost, need: way.need, isChosen, fits: way.need <= machine.memory };
  };
  const isEnough = topology.nodes.flat().length <= options.step.microBatches;
  const predicted = () => {
    const rows = [...(isEnough ? comparison(from) : []), ...ways.priced].map(rowOf);
    return rows.some(({ isChosen }) => isChosen) ? rows : [...rows, rowOf(chosen.priced())];
  };
  const { reason } = chosen;
  return { ...sharedAs(stated, options), reason, predicted };
}

function dividedWays(options: ChooseOptions, machine: Machine, { facts }: CostOptions) {
  const { step, optimizer } = options;
  const strategiesOf = ({ axes, sharing, again, timetable }: DividedWay) => {
    const way = { axes, sharing, timetable, recompute: again ? "blocks" : undefined } as const;
    const own = statedOf({ ...way, offload: undefined, buddies: undefined }, options);
    return sharedAs(own, options).dividing;
  };
  const isRecomputeStated = options.recompute !== undefined;
  const isTimetableStated = options.timetable !== undefined;
  const stated = { isRecomputeStated, isTimetableStated };
  return new DividedWays({ step, facts, optimizer, machine, ...stated, strategiesOf });
}

/** What is stated of recomputation is done before anything is predicted. */
function costOptionsOf(
  { step, optimizer, recompute: stated, buddies: doubled, dividesOnlyIfNeeded }: ChooseOptions,
  machine: Machine,
): CostOptions {
  const shared = { buddies: doubled, machine, onlyIfNeeded: dividesOnlyIfNeeded };
  const mesh = createMesh({ data: machine.topology.nodes.flat().length });
  const factsWith = (how: Recompute) => stepFacts(recompute(how).rewrite(step, mesh), optimizer);
  if (stated !== undefined) return { facts: factsWith(stated), ...shared };
  const repeating = () => {
    try {
      return factsWith("blocks");
    } catch (error) {
      if (error instanceof LockstepError && error.code === "INVALID_OPTION") return undefined;
      throw error;
    }
  };
  return { facts: stepFacts(step, optimizer), repeating, ...shared };
}

function sharedAs(
  options: ParallelOptions,
  {
    topology: real,
    combination = "tree",
    buckets: bucketing,
  }: Omit<ChooseOptions, keyof ChooseFrom>,
): Parallel & { readonly dividing: readonly Strategy[] } {
  const topology = regularTopology(real);
  const { nodes } = topology;
  const each = nodes[0]?.length ?? 1;
  const size = nodes.length * each;
  const { parallel } = options;
  const sizes =
    parallel === undefined
      ? { data: nodes.length, shard: each, tensor: 1, context: 1, expert: 1, pipeline: 1 }
      : statedSizes(parallel, size);
  const wide = orderOf(topology, sizes).filter((axis) => sizes[axis] > 1);
  const axes = wide.filter((axis) => axis === "data" || axis === "shard");
  const mesh = createMesh(Object.fromEntries(wide.map((axis) => [axis, sizes[axis]])));
  const divided = [
    ...(sizes.context > 1 ? [context()] : []),
    ...(sizes.expert > 1 ? [experts()] : []),
    ...(sizes.tensor > 1 ? [tensor()] : []),
  ];
  if (sizes.pipeline > 1) checkPipeline(options, topology, sizes);
  const isStaged = sizes.pipeline > 1;
  const isAgain = options.recompute !== undefined;
  const sharded = sizes.shard > 1 ? "shard" : "data";
  const { zero = sizes.shard > 1 ? 3 : 0 } = options;
  const sharedOver = zero > 0 && axes.length > 0 ? [sharded] : [];
  const stages = { schedule: options.timetable, sharedOver, recompute: isAgain };
  const staged = isStaged ? [pipeline(stages)] : [];
  // A pipeline cuts the pass at its blocks itself.
  const again = options.recompute === undefined || isStaged ? [] : [recompute(options.recompute)];
  const away = options.offload === undefined ? [] : [offload(options.offload)];
  const isUnused = sizes.context === 1 && options.attention === "ring";
  const written = isUnused ? [attentionAsWritten()] : [];
  const dividing = [...written, ...divided, ...again, ...staged];
  const shared = { mesh, topology, stated: options, predicted: undefined, dividing };
  if (axes.length === 0) {
    const own = wide.length === 0 ? "One worker computes the whole step." : reasonOf(wide, sizes);
    const unused = ` zero ${zero} shares nothing out: no two workers have the same part of the model.`;
    const reason = wide.length > 0 && zero > 0 ? `${own}${unused}` : own;
    return { ...shared, strategies: [...dividing, ...away], reason };
  }
  const { bucketBytes = BUCKET_BYTES } = bucketing ?? {};
  const isSummedWhole = zero < 2;
  // With ZeRO a run whose ranks divide the model goes back to its checkpoint after a loss, whatever
  // is doubled.
  const canHaveBuddies = zero > 0 && options.buddies !== false && divided.length === 0 && !isStaged;
  const hasBuddies = canHaveBuddies && buddiesOf(real, mesh, [sharded]).length > 0;
  const strategies = [
    ...dividing,
    ...axes.map((axis) => data({ axis, combination })),
    ...(zero === 1 && !isStaged ? [zero1([sharded])] : []),
    ...(zero === 2 ? [zero2([sharded], bucketBytes)] : []),
    ...(zero === 3 ? [zero3([sharded], bucketBytes)] : []),
    ...(isSummedWhole ? [sharedUpdates(axes)] : []),
    // Within a node, buckets gain nothing, because sums there take milliseconds of the same cores
    // that compute.
    ...(isSummedWhole && !isStaged && nodes.length > 1 && bucketing ? [buckets(bucketing)] : []),
    ...(hasBuddies ? [buddies(real)] : []),
    ...away,
  ];
  const reason = reasonOf(wide, sizes, zero);
  return { ...shared, strategies, reason };
}

function reasonOf(axes: readonly (keyof Sizes)[], sizes: Sizes, zero = 0): string {
  const stated = axes.map((axis) => `${axis} ${sizes[axis]}`);
  return `As stated: ${[...stated, ...(zero > 0 ? [`zero ${zero}`] : [])].join(", ")}.`;
}
