/** Ways to share a step, with what they are predicted to cost: the types of the choice. */
import { PROCESS_BYTES, type ScheduleName, type StepFacts } from "../plan/index.ts";
import { type Cost, type Machine, type Sharing, totalOf } from "./cost.ts";
import type { Offload } from "./offload.ts";
import type { Recompute } from "./recompute.ts";

/** The axes along which workers divide the model, and how many divide it along each. */
export interface ModelAxes {
  readonly context: number;
  readonly expert: number;
  readonly tensor: number;
  readonly pipeline: number;
}

/** A way to share a step, with what it is predicted to cost. */
export interface Priced {
  /** Of workers that have the same part of the model. */
  readonly sharing: Sharing;
  /** Undefined: each worker computes whole micro-batches. */
  readonly axes?: ModelAxes | undefined;
  /** Of a pipeline. Undefined: as stated, or the default. */
  readonly timetable?: ScheduleName | undefined;
  readonly recompute: Recompute | undefined;
  readonly offload: Offload | undefined;
  /** False: without buddies, which would take too much memory. */
  readonly buddies: false | undefined;
  readonly cost: Cost;
  /** The bytes that a rank needs, with those of its process and a margin. */
  readonly need: number;
}

export interface Chosen
  extends Pick<Priced, "sharing" | "axes" | "timetable" | "recompute" | "offload" | "buddies"> {
  /** A sentence for people. */
  readonly reason: string;
  /** Computes the costs; it may cut the pass into pieces for that. */
  readonly priced: () => Priced;
}

export interface CostOptions {
  readonly facts: StepFacts;
  /** What the user has stated. */
  readonly buddies?: boolean | undefined;
  /**
   * The step with all blocks computed again; undefined where that is not possible, or the user has
   * stated what is computed again.
   */
  readonly repeating?: (() => StepFacts | undefined) | undefined;
  readonly machine: Machine;
  /**
   * Finds the best way that divides the model, of those that fit and take less than so many seconds.
   * Default: there is none.
   */
  readonly divided?: ((below: number) => Priced | undefined) | undefined;
  /** Whether such a way is taken only where no other fits. Default: false. */
  readonly onlyIfNeeded?: boolean | undefined;
}

/** A way whose memory is computed on demand, because the pass may have to be cut for it. */
export interface Way {
  readonly sharing: Sharing;
  readonly seconds: number;
  /** An upper bound of the bytes that it needs, without cutting the pass. */
  readonly surelyNeeds: number;
  priced(): Priced;
}

/** The engine's arena of activations takes more than the lifetimes of values say. */
export const MARGIN = 1.1;
/** Predicted times count as equal if their ratio is below this. */
export const NEARLY = 1.05;
/** A way that divides the model is clearly faster if others take so many times as long. */
export const CLEARLY = 1.5;

export function needOf(memory: Cost["memory"]): number {
  return totalOf(memory) * MARGIN + PROCESS_BYTES;
}
