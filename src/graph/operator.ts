/**
 * What is known of an operator. One file in `ops/` answers all of it for one operator; the graph, the
 * gradient and the engines ask here and never "which operator is this".
 */
import type { Tensor, TensorType } from "../tensor/index.ts";
import type { GraphBuilder, Value } from "./builder.ts";
import type { AttributeValue } from "./graph.ts";

export type AttributeKind = AttributeValue["kind"];

/** An attribute's type and, if it may be left out, what then holds (`null`: nothing holds). */
export interface AttributeSpec {
  readonly kind: AttributeKind;
  readonly default?: number | string | readonly number[] | readonly string[] | null;
}

/** Reads a node's attributes with the defaults of its definition. Throws INVALID_ATTRIBUTE when one is missing. */
export interface AttributeReader {
  has(name: string): boolean;
  /** An `int` or a `float`. */
  number(name: string): number;
  string(name: string): string;
  numbers(name: string): readonly number[];
  strings(name: string): readonly string[];
  tensor(name: string): Tensor;
}

/** What shape inference sees of a node. */
export interface InferContext {
  readonly op: string;
  readonly inputs: readonly (TensorType | undefined)[];
  /** How many outputs are asked for. */
  readonly outputCount: number;
  readonly attributes: AttributeReader;
  /** The type of input `index`; throws INVALID_GRAPH if it was left out. */
  input(index: number): TensorType;
  /** The value of input `index`, if it is a constant of the graph (a shape, axes, …). */
  constant(index: number): Tensor | undefined;
  /** Like `constant`, as numbers; throws SHAPE_MISMATCH "must be a constant" if it is not known. */
  constantNumbers(index: number): number[];
  /** Throws SHAPE_MISMATCH with the operator, the layer and this text. */
  fail(what: string, hint?: string): never;
  /** Throws TYPE_MISMATCH with the operator, the layer and this text. */
  failType(what: string, hint?: string): never;
}

/** What a gradient rule sees. It emits nodes into `builder`, made of operators that have rules themselves. */
export interface GradientContext {
  readonly op: string;
  readonly builder: GraphBuilder;
  readonly attributes: AttributeReader;
  /** The forward inputs; undefined where an optional one was left out. */
  readonly inputs: readonly (Value | undefined)[];
  /** The forward outputs; one that the node did not have may be asked for by `output`. */
  readonly outputs: readonly (Value | undefined)[];
  /** Gradients of the outputs; undefined is zero (that output does not reach the loss). */
  readonly gradients: readonly (Value | undefined)[];
  /** Whether the gradient of input `index` is wanted: a rule may leave out the others. */
  needs(index: number): boolean;
  input(index: number): Value;
  output(index: number): Value;
  /** The gradient of output `index`; zeros if that output does not reach the loss. */
  gradient(index: number): Value;
  constant(index: number): Tensor | undefined;
  constantNumbers(index: number): number[];
  /**
   * The gradient of Σ seed·output for `wrt`, along the nodes that the rule has added: it can write its operator in others and leave
   * gradients to them.
   */
  backward(
    outputs: readonly Value[],
    wrt: readonly Value[],
    seeds: readonly Value[],
  ): readonly (Value | undefined)[];
  /** Says that `value`, which the gradient computes anyway, equals output `index`: readers of both passes then use that one. */
  replace(index: number, value: Value): void;
}

/**
 * - a function: the gradient of each input (undefined: none, or not needed);
 * - `zero`: piecewise constant or integral; the gradient is zero everywhere it exists, for this reason;
 * - `missing`: not known to us; asking for it is an error that ends with this advice.
 */
export type GradientRule =
  | ((context: GradientContext) => readonly (Value | undefined)[])
  | { readonly zero: string }
  | { readonly missing: string };

/** What a rule for batches sees of a node. It may emit nodes into `builder`. */
export interface BatchContext {
  readonly builder: GraphBuilder;
  readonly attributes: AttributeReader;
  readonly inputs: readonly (Value | undefined)[];
  input(index: number): Value;
  /** Of an input that is a constant; none where it is not. */
  constantNumbers(index: number): number[];
}

/** How a result over a batch follows from the results over its parts. What is left out does not follow from them. */
export interface BatchRule {
  /**
   * Where the dims of the batch go in this node: the result is the sum over the parts, or their mean (of equal parts); a value is the
   * same result, made of nodes that can answer this.
   */
  readonly reduces?:
    | "sum"
    | "mean"
    | ((context: BatchContext) => "sum" | "mean" | Value | undefined);
  /** Dims of input 0 along which an element of the result depends on others than the one in its place. */
  readonly mixes?: (context: BatchContext) => readonly (number | undefined)[];
  /** The input that holds numbers of places of input 0 (read there, or written to), and the dims that they are of. */
  readonly picks?: (context: BatchContext) => Picks;
  /** Of a mean: the operator of the same inputs and attributes that gives the sum. */
  readonly sumOf?: string;
  /**
   * The inputs in which it is linear: in all of them together (a sum), in each while the others are constant (a product), or in the first
   * while the others are constant (a quotient).
   */
  readonly linear?: "together" | "each" | "first";
  /** The input that it divides by: where that is 0, the result is not finite. */
  readonly divides?: number;
}

export interface Picks {
  readonly input: number;
  /** One dim; or the dims of tuples of numbers, which lie along the last dim of that input. */
  readonly dims: number | readonly number[];
}

export interface CostContext extends InferContext {
  readonly outputs: readonly TensorType[];
}

/** An input of a node that holds numbers of places. */
export interface IndexUse {
  readonly input: number;
  /** How many places there are; for tuples of numbers, those of each number along the last dim. */
  readonly places: readonly number[];
  /** Whether negative numbers count from the end, in ONNX and where models come from. */
  readonly wraps: boolean;
  /** A number that stands for no place. */
  readonly ignored?: number;
}

/** What each element of the result is, in words that serve to follow a value from node to node. */
export type ElementForm =
  /** The sum of the elements of the inputs, each times its sign. */
  | { readonly kind: "sum"; readonly signs: readonly (1 | -1)[] }
  /** That of input `yes` where input `condition` holds, elsewhere that of input `no`. */
  | {
      readonly kind: "choice";
      readonly condition: number;
      readonly yes: number;
      readonly no: number;
    }
  /** Whether both inputs are equal. */
  | { readonly kind: "equality" }
  /** Whether the input does not hold. */
  | { readonly kind: "negation" };

export interface OperatorDefinition {
  /** `Conv`; with its domain if that is not ONNX's own: `com.microsoft::FusedMatMul`. */
  readonly name: string;
  /** How many inputs and outputs a node may have: [least, most]. */
  readonly inputs: readonly [number, number];
  readonly outputs: readonly [number, number];
  readonly attributes: Readonly<Record<string, AttributeSpec>>;
  /** Types of the outputs, checked and inferred from those of the inputs. */
  readonly infer: (context: InferContext) => readonly TensorType[];
  readonly gradient: GradientRule;
  /** Set if equal inputs give other outputs each time: it is not computed beforehand. */
  readonly draws?: true;
  /** Floating-point operations of one run; a multiply-add counts as 2. */
  readonly flops: (context: CostContext) => number;
  /** Inputs that hold numbers of places. Default: none. */
  readonly indices?: (context: InferContext) => readonly IndexUse[];
  /** Whether the outputs hold elements of the inputs as they are, wherever they lie. Default: false. */
  readonly moves?: boolean;
  /** What the elements of output 0 are. Default: nothing that helps to follow a value. */
  readonly form?: ElementForm;
  /** The outputs made of other operators, for an engine whose kernel lacks the element type. Default: it has no other form. */
  readonly written?: (
    context: Pick<GradientContext, "builder" | "attributes" | "inputs" | "input">,
  ) => readonly Value[];
  /** Whether output 0 may be written over an input of the same type (element by element, in place). */
  readonly inPlace: boolean;
  /** What is known of batches and their parts; nothing where it is left out. */
  readonly batch?: BatchRule;
}

/** Where operators are looked up: `ops/` has the full table. */
export interface OperatorTable {
  find(op: string): OperatorDefinition | undefined;
}
