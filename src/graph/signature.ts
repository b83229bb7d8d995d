/**
 * The signature of an operator: what a graph needs to know of it to accept a node, which is the
 * numbers of inputs and outputs, the attributes, and the types that follow from them.
 */
import type { Tensor, TensorType } from "../tensor/index.ts";
import type { AttributeValue } from "./graph.ts";

export type AttributeKind = AttributeValue["kind"];

/** The type of an attribute and, if it may be omitted, its default (`null`: it has no default). */
export interface AttributeSpec {
  readonly kind: AttributeKind;
  readonly default?: number | string | readonly number[] | readonly string[] | null;
}

/**
 * Reads a node's attributes with the defaults of its definition. Throws INVALID_ATTRIBUTE if one is
 * missing.
 */
export interface AttributeReader {
  has(name: string): boolean;
  /** The value of an `int` or a `float`. */
  number(name: string): number;
  string(name: string): string;
  numbers(name: string): readonly number[];
  strings(name: string): readonly string[];
  tensor(name: string): Tensor;
}

/** What shape inference knows of a node. */
export interface InferContext {
  readonly op: string;
  readonly inputs: readonly (TensorType | undefined)[];
  /** The number of outputs that the node has. */
  readonly outputCount: number;
  readonly attributes: AttributeReader;
  /** The type of input `index`. Throws INVALID_GRAPH if it was omitted. */
  input(index: number): TensorType;
  /** The value of input `index`, if it is a constant of the graph (a shape, axes, …). */
  constant(index: number): Tensor | undefined;
  /**
   * The elements of a constant as numbers. Throws SHAPE_MISMATCH "must be a constant" if they are
   * not known.
   */
  constantNumbers(index: number): number[];
  /** Throws SHAPE_MISMATCH with the operator, the layer and this text. */
  fail(what: string, hint?: string): never;
  /** Throws TYPE_MISMATCH with the operator, the layer and this text. */
  failType(what: string, hint?: string): never;
}

export interface OperatorSignature {
  /** The name: `Conv`, or with a domain other than ONNX's own `com.microsoft::FusedMatMul`. */
  readonly name: string;
  /** The numbers of inputs and outputs that a node may have: [least, most]. */
  readonly inputs: readonly [number, number];
  readonly outputs: readonly [number, number];
  readonly attributes: Readonly<Record<string, AttributeSpec>>;
  /** Checks the types of the inputs, and infers those of the outputs. */
  readonly infer: (context: InferContext) => readonly TensorType[];
}

/** Looks up the signatures of operators. */
export interface SignatureTable {
  find(op: string): OperatorSignature | undefined;
}
