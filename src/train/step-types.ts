/** What a step is asked for, and what it gives. */
import type { EngineTensor } from "../engine/index.ts";

/** Tensors of the batch by input name; the leading dim is all samples of this rank, micro-batch after micro-batch. */
export type BatchFields = Readonly<Record<string, EngineTensor>>;
export type FillBatch = (into: BatchFields) => void | Promise<void>;

export interface StepRequest {
  /** The samples of this step in the global order: random layers depend on them, not on the number of workers. */
  readonly positions: { readonly start: number; readonly end: number };
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
  /** The batch holds no label that counts: loss and gradient have no value and are given as 0, and the step has changed nothing. */
  readonly isEmpty: boolean;
  /** Whether some rank asked for a stop: the same on all. */
  readonly stop: boolean;
  /** Why ranks share micro-batches in another way from the next step on. */
  readonly shared?: string;
}
