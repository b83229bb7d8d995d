/**
 * The kinds of values of a model: how a value over the whole batch follows from its values over the
 * parts of the batch.
 */
import type { Graph, Node, Value } from "../../graph/index.ts";

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
  readonly part: Graph;
  /** The graph of the same model for more samples. */
  readonly whole: Graph;
  /** The inputs whose leading dim is the batch. */
  readonly fields: readonly string[];
  /** The inputs that gradients are wanted for. */
  readonly parameters: readonly string[];
  /**
   * The values that running statistics are computed from: the values of a part are used in place of
   * those of the whole.
   */
  readonly statistics: ReadonlySet<string>;
  /**
   * The samples of a part divided by the samples of the batch. The batch is that of `whole`, unless
   * the part is itself the whole batch and `whole` only serves to show which dims are the batch.
   */
  readonly share: number;
  /**
   * The numbers of samples of `part` and of `whole`. They are equal if the model has one size only.
   */
  readonly sizes: readonly [part: number, whole: number];
  /**
   * Whether other sizes have shown that no sample depends on another. An apparent dependence is
   * then a difference between the two graphs.
   */
  readonly isVouched: boolean;
  /** Whether means are computed as sums, so that a quotient is not rounded before it is added. */
  readonly exactMeans: boolean;
  /**
   * Whether totals that do not depend on parameters are computed first, for the whole batch, and
   * then given to every part.
   */
  readonly totalsFirst: boolean;
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
