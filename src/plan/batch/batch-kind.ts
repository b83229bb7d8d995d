/** What can be known of a value of a model over a batch and over the parts of the batch. */
import type { Graph, Node, Value } from "../../graph/index.ts";

/** One value in both graphs. */
export interface Pair {
  readonly part: Value;
  readonly whole: Value;
}

export type Kind =
  /** The same in every part: constants, parameters and what is made of them. */
  | { readonly kind: "fixed" }
  /** That of the whole is those of the parts, one after the other. */
  | { readonly kind: "rows" }
  /** That of the whole is `factor` times the sum of those of the parts. `part` may be another value than the node's own. */
  | { readonly kind: "sum"; readonly factor: number; readonly part: Value }
  /** Computed from sums: it has a meaning for the whole batch only. */
  | { readonly kind: "total" }
  /** Nothing of the above, and why. */
  | { readonly kind: "mixed"; readonly reason: string };

export interface BatchKindsOptions {
  readonly part: Graph;
  /** The same model, for more samples. */
  readonly whole: Graph;
  /** Inputs whose leading dim is the batch. */
  readonly fields: readonly string[];
  /** Inputs that gradients are wanted for. */
  readonly parameters: readonly string[];
  /** Values that running statistics are made of: those of a part are used in place of those of the whole. */
  readonly statistics: ReadonlySet<string>;
  /** Samples of a part over those of the batch: of `whole`, unless the part is the batch and `whole` shows only which dims are it. */
  readonly share: number;
  /** Samples of `part` and of `whole`; the same where the model has one size only. */
  readonly sizes: readonly [part: number, whole: number];
  /** Whether it is known from other sizes that no sample has to do with another: then what looks so is a difference of the graphs. */
  readonly isVouched: boolean;
  /** Whether means are taken as sums, so that what is divided is not rounded before it is added up. */
  readonly exactMeans: boolean;
  /** Whether totals that no parameter changes are made first, for the whole batch, and then given to every part. */
  readonly totalsFirst: boolean;
}

export type PartSum = Pick<Extract<Kind, { kind: "sum" }>, "factor" | "part">;

/** A total that is given to the graph of a part as an input. */
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

/** A sum or total: it has no value before all parts have been seen. */
export function isOfBatch({ kind }: Kind): boolean {
  return kind === "sum" || kind === "total";
}
