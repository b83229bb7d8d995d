/**
 * How a node can be divided among the ranks along one axis of a mesh: the answer of each operator to
 * "given how ranks hold the inputs, how do they hold the outputs?". After GSPMD (Xu et al., 2021),
 * whose sharding propagation asks the same of each operator.
 */
import type { AxisPlacement } from "../mesh/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { AttributeInputs } from "./attributes.ts";
import type { GraphBuilder, Value } from "./builder.ts";
import type { AttributeReader, InferContext } from "./signature.ts";

/** What is known of a node that is to be divided. All types are of whole tensors. */
export interface DivisionContext extends InferContext {
  readonly outputs: readonly TensorType[];
  /** The number of ranks on the axis. */
  readonly ranks: number;
  /**
   * In which proportions the sections of a dim may be (see `Shard`): those that the graph has use
   * for, beginning with [1], a dim of one section.
   */
  readonly proportions: readonly (readonly number[])[];
  /** Whether index tuples, in this input, are known to begin with the number of their own row. */
  ownRows(index: number): boolean;
}

/** One way to divide a node. Undefined stands for replicated, and for an input that is omitted. */
export interface Division {
  readonly inputs: readonly (AxisPlacement | undefined)[];
  readonly outputs: readonly (AxisPlacement | undefined)[];
  /**
   * What each rank computes from what it holds. Default: the operator itself, with the same
   * attributes.
   */
  readonly local?: (context: LocalContext) => readonly Value[];
  /** The bytes that ranks sum for it, in whole tensors, by `allReduce`. Default: none. */
  readonly exchanged?: number;
}

/** What a rank has of a node. It emits nodes into `builder`; the graph is the same on all ranks. */
export interface LocalContext {
  readonly builder: GraphBuilder;
  readonly attributes: AttributeReader;
  /** What this rank holds of each input. */
  readonly inputs: readonly (Value | undefined)[];
  input(index: number): Value;
  /** The types of what this rank is to make. */
  readonly outputs: readonly TensorType[];
  readonly ranks: number;
  /** The place of this rank on the axis: an int64 scalar. */
  place(): Value;
  /** The sum (or the largest) of what all ranks of the axis have of a value. */
  allReduce(value: Value, kind: "sum" | "max"): Value;
  /** What the rank before this one has of a value; the last rank is before the first. */
  shift(value: Value): Value;
  /** The node itself, with other inputs or attributes. */
  again(inputs: readonly (Value | undefined)[], attributes?: AttributeInputs): readonly Value[];
}

/**
 * - a function: the ways in which a node can be divided, beside the one that is always there, that
 *   every rank computes the whole;
 * - `never`: the operator is not divided; the text is the reason.
 */
export type DivisionRule =
  | ((context: DivisionContext) => readonly Division[])
  | { readonly never: string };
