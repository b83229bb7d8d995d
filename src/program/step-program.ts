/** The program of a rank for a step, with the places of what goes in and comes out. */
import type { Arena } from "../plan/index.ts";
import type { Divided } from "./divided.ts";
import type { EvaluationPlan } from "./evaluation.ts";
import type { JournalPlan } from "./journal.ts";
import type { Gathered, Held, Owners } from "./ownership.ts";
import type { Program, Run, RunStage, Stage, TensorRef } from "./program.ts";
import type { ScalarPlan } from "./update.ts";

/** Stages that differ by which of the two sets of states is the last committed one. */
export interface Side {
  /**
   * Run first: they compute what every micro-batch is given of the whole batch. Empty for most
   * losses.
   */
  readonly totals: readonly Stage[];
  /** Loss, gradients and summary. Nothing that was committed changes. */
  readonly compute: readonly Stage[];
  /** The update. Afterwards the other side is the committed one. */
  readonly commit: readonly Stage[];
  /**
   * The gradient of each micro-batch of this rank, as a run of the whole graph; empty if no rank
   * has all parameters.
   */
  readonly gradients: readonly Run[];
  /** The first of them in the pieces in which a step computes it; undefined if that is whole. */
  readonly pieces: readonly RunStage[] | undefined;
  /** One for each size of `evaluation`. */
  readonly evaluate: readonly Stage[];
  readonly states: ReadonlyMap<string, TensorRef>;
}

/** The places that say whether a batch holds anything that counts. */
export interface Counted {
  /** After `totals`, this is 1 if all counts are 0, and 0 otherwise. */
  readonly none: TensorRef;
  /** This replaces counts that are all 0. It is written before, as 0, to keep the loss as it is. */
  readonly instead: TensorRef;
}

/** All that a rank does in a step, and where it finds what goes in and comes out. */
export interface StepProgram extends Program {
  readonly sides: readonly [Side, Side];
  /** What the pieces of a micro-batch hand on; undefined if the gradient graph runs whole. */
  readonly arena: Arena | undefined;
  /** The number of parts in which gradients are summed over ranks. */
  readonly buckets: number;
  /** What `summaryOf` reads after `compute`. */
  readonly summary: TensorRef;
  /** For losses that are divided by counts of the whole batch, which are computed first. */
  readonly counted: Counted | undefined;
  /** What `scalarsOf` makes before `commit`. */
  readonly scalars: readonly ScalarPlan[];
  /** By `PARAMETER.SLOT`. */
  readonly slots: ReadonlyMap<string, TensorRef>;
  /** The parts of slots and parameters that each other rank of this one's group looks after. */
  readonly held: readonly Held[];
  /** The parts that this rank looks after, in the order in which others have them in `held`. */
  readonly kept: readonly Held[];
  /** The ranks in `held` whose parts this rank holds, too. */
  readonly wards: readonly number[];
  /** Who else holds the same parts; undefined if every rank holds everything. */
  readonly owners: Owners | undefined;
  /** What goes to all ranks at the end of a commit, by the ranks that have made it. */
  readonly gathered: readonly Gathered[];
  /**
   * The ranks that have each place in the model, in the order of their samples; undefined where each
   * rank has samples of its own.
   */
  readonly places: readonly (readonly number[])[] | undefined;
  /** What ranks that divide the model have; undefined where each has all of it. */
  readonly divided: Divided | undefined;
  /** Whether `held` can be read in place; else it has to be sent. */
  readonly isHeldInPlace: boolean;
  /** What a commit writes down before it overwrites values that no other rank has. */
  readonly journal: JournalPlan | undefined;
  /** The hashes of the graphs that update, the same on all ranks. */
  readonly updateHashes: readonly string[];
  /**
   * The number of micro-batches that each rank computes at once, the same on all; undefined if
   * ranks do not compute in waves.
   */
  readonly atOnce: number | undefined;
  /** The micro-batches of this rank, by their places in the step: rows of the batch, in order. */
  readonly microBatches: readonly number[];
  /**
   * Each rank writes it before a step; afterwards it is the number of ranks that asked for a stop.
   * Undefined for one micro-batch.
   */
  readonly stop: TensorRef | undefined;
  /**
   * Seconds for each micro-batch, by rank: each rank writes its own before a step, and finds those
   * of all afterwards. Undefined for one rank.
   */
  readonly paces: TensorRef | undefined;
  /** The fields of this rank's part of the batch, and the keys of its samples if there are any. */
  readonly batch: ReadonlyMap<string, TensorRef>;
  readonly evaluation: EvaluationPlan | undefined;
  readonly parameters: ReadonlyMap<string, TensorRef>;
}
