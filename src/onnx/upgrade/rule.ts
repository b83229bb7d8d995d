/** What a rule of import sees and gives back. Rules turn the operators of a file into those of our table. */
import type {
  AttributeInputs,
  Attributes,
  AttributeValue,
  GraphBuilder,
  Value,
} from "../../graph/index.ts";
import type { Tensor } from "../../tensor/index.ts";

/** A node of a file, with its inputs found. */
export interface ImportNode {
  /** `Conv`, or with its domain: `com.microsoft::Gelu`. */
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly (Value | undefined)[];
  readonly attributes: Attributes;
  /** Names; the empty string is an output left out. */
  readonly outputs: readonly string[];
  /** The version of the operator set in which its attributes and inputs are meant. */
  readonly opset: number;
}

export interface RuleContext {
  readonly node: ImportNode;
  readonly builder: GraphBuilder;
  /** Input `index`; an error of the file if it was left out. */
  input(index: number): Value;
  /** Input `index`, if its elements are known. */
  constant(index: number): Tensor | undefined;
  /** The elements of input `index`; an error if they are not known before the graph runs. */
  numbers(index: number): number[];
  attribute(name: string): AttributeValue | undefined;
  int(name: string, otherwise: number): number;
  float(name: string, otherwise: number): number;
  string(name: string, otherwise: string): string;
  ints(name: string): readonly number[] | undefined;
  /** Adds a node in the newest form (or folds it). Inputs may be values left out. */
  emit(
    op: string,
    inputs: readonly (Value | undefined)[],
    attributes?: AttributeInputs,
    outputs?: number,
  ): Value[];
  one(op: string, inputs: readonly (Value | undefined)[], attributes?: AttributeInputs): Value;
  /** A scalar of the element type of `like`. */
  scalar(like: Value, number: number): Value;
  /** What a sequence holds that is input `index`; an error if it is none. */
  elements(index: number): readonly Value[];
  /** A sequence as an output of the node: only other rules for sequences can read it. */
  sequence(values: readonly Value[]): Value;
  /** Throws ONNX_UNSUPPORTED with the node and the file. */
  fail(what: string, hint?: string): never;
}

/** Another form of the node, or the values of its outputs, or nothing: the node stays as it is. */
export type Rule = (
  context: RuleContext,
) => ImportNode | readonly (Value | undefined)[] | undefined;

export interface RuleEntry {
  /** Holds for nodes of operator sets before this one. */
  readonly below?: number;
  /** Only if the operator has no definition of its own in `ops/`. */
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
