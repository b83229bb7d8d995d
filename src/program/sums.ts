/** How what micro-batches make becomes the sums that a step needs: the form of both ways. */
import { type StepGraph, valueName, valueOf } from "../plan/index.ts";
import type { Exchanges } from "./exchanges.ts";
import type { FlatVectors } from "./flat.ts";
import type { Gathered } from "./gathered.ts";
import type { Ground } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import type { At, Places } from "./places.ts";
import type { RunStage, Stage, TensorRef } from "./program.ts";
import type { Range } from "./shares.ts";

export interface SumOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  readonly ground: Ground;
  readonly rank: number;
  /** The micro-batches of each rank. */
  readonly ranges: readonly Range[];
  /** The number of micro-batches that may run at once. */
  readonly lanes: number;
  /** What ranks of other parts of the model exchange within a pass. Default: nothing. */
  readonly exchanges?: Exchanges | undefined;
}

/**
 * Rows of the micro-batches from `first` on, of which each rank of a group has made so many: they
 * go to all of these.
 */
export interface RowGather {
  readonly group: string;
  readonly first: number;
  readonly counts: readonly number[];
}

export interface SumPlan {
  /** The micro-batches of this rank, by their places in the step. */
  readonly own: readonly number[];
  /** The most micro-batches that run at once. */
  readonly lanes: number;
  /** Whether each rank computes the range that it was given; else all ranks compute in waves. */
  readonly followsRanges: boolean;
  /** How what each micro-batch has made comes to all ranks, in this order. */
  readonly rows: readonly RowGather[];
  /** The number of parts in which gradients are summed over ranks. */
  readonly buckets: number;
  /** Who updates what; undefined if each rank updates all. */
  readonly ownership: Ownership | undefined;
  /**
   * The ranks that have each place in the model, in the order of their samples; undefined where each
   * rank has samples of its own.
   */
  readonly places?: readonly (readonly number[])[];
  /** How parameters are gathered; undefined if each rank has all of them. */
  readonly gathered?: Gathered;
  place(name: string, at: At): TensorRef | undefined;
  /**
   * The place where a rank writes what it tells the others in a step, and reads what all have told;
   * undefined if nothing is told.
   */
  control(of: string): TensorRef | undefined;
  stages(places: Places, from: number): Stage[];
  /**
   * The first micro-batch in the pieces in which a step computes it; undefined if that cannot be
   * compared with the whole.
   */
  pieces(places: Places, from: number): RunStage[] | undefined;
}

/**
 * The sum to which a value of a micro-batch goes: `gradient:w` for `partial gradient:w`. Undefined
 * for other values.
 */
export function sumOf(step: StepGraph, name: string): string | undefined {
  const { of } = valueOf(step, name);
  const stage = name.slice(0, name.length - of.length - 1);
  if (!stage.startsWith("partial ")) return undefined;
  const role = stage.slice("partial ".length);
  return valueName(role === "state" ? "state sum" : role, of);
}
