/** The interface of import rules, which turn the operators of a file into those of our table. */
import type {
  AttributeInputs,
  Attributes,
  AttributeValue,
  GraphBuilder,
  Value,
} from "../../graph/index.ts";
import type { Tensor } from "../../tensor/index.ts";

/** A node of a file, with its inputs resolved. */
export interface ImportNode {
  /** The operator: `Conv`, or with its domain: `com.microsoft::Gelu`. */
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly (Value | undefined)[];
  readonly attributes: Attributes;
  /** The names of the outputs; the empty string stands for an omitted output. */
  readonly outputs: readonly string[];
  /** The version of the operator set that defines its attributes and inputs. */
  readonly opset: number;
}

export interface RuleContext {
  readonly node: ImportNode;
  readonly builder: GraphBuilder;
  /** Input `index`; throws an error about the file if it was omitted. */
  input(index: number): Value;
  /** Input `index`, if its elements are known. */
  constant(index: number): Tensor | undefined;
  /** The elements of input `index`; throws if they are not known before the graph runs. */
  numbers(index: number): number[];
  attribute(name: string): AttributeValue | undefined;
  int(name: string, otherwise: number): number;
  float(name: string, otherwise: number): number;
  string(name: string, otherwise: string): string;
  ints(name: string): readonly number[] | undefined;
  /** Adds a node in the newest form (or folds it). Inputs may be omitted. */
  emit(
    op: string,
    inputs: readonly (Value | undefined)[],
    attributes?: AttributeInputs,
    outputs?: number,
  ): Value[];
  one(op: string, inputs: readonly (Value | undefined)[], attributes?: AttributeInputs): Value;
  /** A scalar of the element type of `like`. */
  scalar(like: Value, number: number): Value;
  /** The elements of the sequence that is input `index`; throws if it is not a sequence. */
  elements(index: number): readonly Value[];
  /** A sequence as an output of the node: only other rules for sequences can read it. */
  sequence(values: readonly Value[]): Value;
  /** Throws ONNX_UNSUPPORTED with the node and the file. */
  fail(what: string, hint?: string): never;
}

/**
 * Returns another form of the node, or the values of its outputs, or nothing: the node then stays
 * unchanged.
 */
export type Rule = (
  context: RuleContext,
) => ImportNode | readonly (Value | undefined)[] | undefined;

export interface RuleEntry {
  /** The rule applies to nodes of operator sets before this one. */
  readonly below?: number;
  /** The rule applies only if the operator has no definition of its own in `ops/`. */
  readonly unlessDefined?: true;
  readonly rule: Rule;
}

export type RuleTable = Readonly<Record<string, readonly RuleEntry[]>>;

/** The node without some attributes and with other inputs. */
export function rewrite(
  node: ImportNode,
  changes: {
    readonly op?: string;
    readonly inputs?: readonly (Value | undefined)[];
    readonly without?: readonly string[];
    readonly set?: Attributes;
  },
): ImportNode {
  const kept = Object.entries(node.attributes).filter(([name]) => !changes.without?.includes(name));
  return {
    ...node,
    op: changes.op ?? node.op,
    inputs: trim(changes.inputs ?? node.inputs),
    attributes: { ...Object.fromEntries(kept), ...changes.set },
  };
}

function trim(inputs: readonly (Value | undefined)[]): readonly (Value | undefined)[] {
  let length = inputs.length;
  while (length > 0 && inputs[length - 1] === undefined) length--;
  return inputs.slice(0, length);
}
