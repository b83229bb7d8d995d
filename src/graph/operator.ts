/**
 * The definition of an operator. One file in `ops/` holds everything that is known of one operator;
 * the graph, the gradient and the engines use it and never ask "which operator is this".
 */
import type { Tensor, TensorType } from "../tensor/index.ts";
import type { GraphBuilder, Value } from "./builder.ts";
import type { DivisionRule } from "./division.ts";
import type {
  AttributeReader,
  InferContext,
  OperatorSignature,
  SignatureTable,
} from "./signature.ts";

/**
 * What a gradient rule knows of a node. It emits nodes into `builder`, made of operators that have
 * rules themselves.
 */
export interface GradientContext {
  readonly op: string;
  readonly builder: GraphBuilder;
  readonly attributes: AttributeReader;
  /** The forward inputs; undefined for an omitted optional input. */
  readonly inputs: readonly (Value | undefined)[];
  /** The forward outputs. `output` returns one that the node did not have. */
  readonly outputs: readonly (Value | undefined)[];
  /** The gradients of the outputs. Undefined means zero: the output does not reach the loss. */
  readonly gradients: readonly (Value | undefined)[];
  /** Whether the gradient of input `index` is needed; a rule may omit the others. */
  needs(index: number): boolean;
  input(index: number): Value;
  output(index: number): Value;
  /** The gradient of output `index`; zeros if the output does not reach the loss. */
  gradient(index: number): Value;
  constant(index: number): Tensor | undefined;
  constantNumbers(index: number): number[];
  /**
   * The gradient of Σ seed·output with respect to `wrt`, through the nodes that the rule has added.
   * With it, a rule can express its operator by others and leave the gradient to them.
   */
  backward(
    outputs: readonly Value[],
    wrt: readonly Value[],
    seeds: readonly Value[],
  ): readonly (Value | undefined)[];
  /**
   * Declares that `value`, which the gradient computes anyway, equals output `index`: readers in
   * the forward and backward pass then use it.
   */
  replace(index: number, value: Value): void;
}

/**
 * - a function: returns the gradient of each input (undefined: none, or not needed);
 * - `zero`: the operator is piecewise constant or integral, so the gradient is zero everywhere it
 *   exists; the text is the reason;
 * - `missing`: lockstep has no gradient for the operator; asking for it is an error that ends
 *   with this advice.
 */
export type GradientRule =
  | ((context: GradientContext) => readonly (Value | undefined)[])
  | { readonly zero: string }
  | { readonly missing: string };

/** What a rule for batches knows of a node. It may emit nodes into `builder`. */
export interface BatchContext {
  readonly builder: GraphBuilder;
  readonly attributes: AttributeReader;
  readonly inputs: readonly (Value | undefined)[];
  input(index: number): Value;
  /** The elements of an input that is a constant; an empty list if it is not one. */
  constantNumbers(index: number): number[];
}

/**
 * How a result over a batch follows from the results over its parts. A property that is absent
 * makes no statement.
 */
export interface BatchRule {
  /**
   * How this node reduces the dims of the batch: the result is the sum over the parts, or the mean
   * over parts of equal size. A value is the same result, made of nodes that have such a rule
   * themselves.
   */
  readonly reduces?:
    | "sum"
    | "mean"
    | ((context: BatchContext) => "sum" | "mean" | Value | undefined);
  /**
   * The dims of input 0 along which an element of the result depends on elements at other
   * positions.
   */
  readonly mixes?: (context: BatchContext) => readonly (number | undefined)[];
  /**
   * The input that holds indices into input 0 (to read or to write), and the dims that they index.
   */
  readonly picks?: (context: BatchContext) => Picks;
  /** For a mean: the operator that computes the sum from the same inputs and attributes. */
  readonly sumOf?: string;
  /**
   * The inputs in which the operator is linear: in all of them together (a sum), in each while the
   * others are constant (a product), or in the first while the others are constant (a quotient).
   */
  readonly linear?: "together" | "each" | "first";
  /** The index of the input that it divides by: where that is 0, the result is not finite. */
  readonly divides?: number;
}

export interface Picks {
  readonly input: number;
  /** One dim, or the dims of tuples of indices, which lie along the last dim of that input. */
  readonly dims: number | readonly number[];
}

export interface CostContext extends InferContext {
  readonly outputs: readonly TensorType[];
}

/** An input of a node that holds indices. */
export interface IndexUse {
  readonly input: number;
  /**
   * The number of positions that an index can address; for tuples, that of each index along the
   * last dim.
   */
  readonly places: readonly number[];
  /**
   * Whether negative indices count from the end, both in ONNX and in the framework that the model
   * comes from.
   */
  readonly wraps: boolean;
  /** An index that is allowed although it addresses no position. */
  readonly ignored?: number;
}

/** What each element of the result is, so that a value can be followed from node to node. */
export type ElementForm =
  /** The sum of the elements of the inputs, each multiplied by its sign. */
  | { readonly kind: "sum"; readonly signs: readonly (1 | -1)[] }
  /**
   * The element of input `yes` where input `condition` is true, and that of input `no` elsewhere.
   */
  | {
      readonly kind: "choice";
      readonly condition: number;
      readonly yes: number;
      readonly no: number;
    }
  /** Whether the elements of both inputs are equal. */
  | { readonly kind: "equality" }
  /** Whether the input is false. */
  | { readonly kind: "negation" };

/**
 * - `elements`: each element for itself; inputs are broadcast;
 * - `axis`: input 0 along the dim that the attribute `axis` names; other inputs belong to that dim;
 * - `axes`: input 0 over the dims that input 1 lists;
 * - `matrices`: the matrices in the last two dims of inputs 0 and 1.
 */
export type Within = "elements" | "axis" | "axes" | "matrices";

export interface OperatorDefinition extends OperatorSignature {
  readonly gradient: GradientRule;
  /** Set if equal inputs give other outputs each time: the node is then not folded. */
  readonly draws?: true;
  /** The number of floating-point operations of one execution; a multiply-add counts as 2. */
  readonly flops: (context: CostContext) => number;
  /** The inputs that hold indices. Default: none. */
  readonly indices?: (context: InferContext) => readonly IndexUse[];
  /**
   * Whether the outputs hold unchanged elements of the inputs, at any positions. Default: false.
   */
  readonly moves?: boolean;
  /** What the elements of output 0 are. Default: not stated. */
  readonly form?: ElementForm;
  /**
   * The outputs composed of other operators, for an engine whose kernel does not support the
   * element type. Default: no such form exists.
   */
  readonly written?: (
    context: Pick<GradientContext, "builder" | "attributes" | "inputs" | "input">,
  ) => readonly Value[];
  /**
   * Whether output 0 may be written over an input of the same type (element by element, in place).
   */
  readonly inPlace: boolean;
  /**
   * Within which of the last dims it works: the dims before them may be grouped in any other way,
   * and no element changes. Default: not stated.
   */
  readonly within?: Within;
  /** How ranks can share its work. */
  readonly divisions: DivisionRule;
  /** What is known of batches and their parts. Default: nothing. */
  readonly batch?: BatchRule;
}

/** Looks up operators; `ops/` has the full table. */
export interface OperatorTable extends SignatureTable {
  find(op: string): OperatorDefinition | undefined;
}
