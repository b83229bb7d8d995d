/**
 * The kinds of values of a model: how a value over the whole batch follows from its values over the
 * parts of the batch.
 */
import type { Node, Value } from "../../graph/index.ts";
import type { Model } from "../../nn/index.ts";

/** The same value in the graph of a part and in the graph of the whole batch. */
export interface Pair {
  readonly part: Value;
  readonly whole: Value;
}

export type Kind =
  /** The value is the same in every part: constants, parameters, and what is computed from them. */
  | { readonly kind: "fixed" }
  /** The value of the whole is the concatenation of the values of the parts. */
  | { readonly kind: "rows" }
  /**
   * The value of the whole is `factor` times the sum of the values of the parts. `part` may be
   * another value than the node's own output.
   */
  | { readonly kind: "sum"; readonly factor: number; readonly part: Value }
  /** The value is computed from sums, so it has a meaning for the whole batch only. */
  | { readonly kind: "total" }
  /** The value is none of the above, for this reason. */
  | { readonly kind: "mixed"; readonly reason: string };

export interface BatchKindsOptions {
  /** The model built for a part of the batch. */
  readonly part: Model;
  /**
   * The model built for the whole batch or, if the part is the whole batch, for more samples, to
   * show which dims are the batch.
   */
  readonly whole: Model;
  /** The samples of a part divided by the samples of the batch. */
  readonly share: number;
  /**
   * Whether other sizes have shown that no sample depends on another. An apparent dependence is
   * then a difference between the two graphs. Default: false.
   */
  readonly isVouched?: boolean;
  /**
   * Whether means are computed as sums, so that a quotient is not rounded before it is added.
   * Default: false.
   */
  readonly exactMeans?: boolean;
  /**
   * Whether totals that do not depend on parameters are computed first, for the whole batch, and
   * then given to every part. Default: false.
   */
  readonly totalsFirst?: boolean;
}

export type PartSum = Pick<Extract<Kind, { kind: "sum" }>, "factor" | "part">;

/** A total that the graph of a part takes as an input. */
export interface Given {
  readonly input: string;
  readonly pair: Pair;
}

export const FIXED: Kind = { kind: "fixed" };
export const ROWS: Kind = { kind: "rows" };
export const TOTAL: Kind = { kind: "total" };

/** A node of a model, and what it reads. */
export interface Reading {
  readonly node: Node;
  readonly inputs: readonly (Pair | undefined)[];
}

/** Whether the kind is a sum or a total, which has no value before all parts were computed. */
export function isOfBatch({ kind }: Kind): boolean {
  return kind === "sum" || kind === "total";
}
