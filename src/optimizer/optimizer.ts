/**
 * An optimizer is data and a pure graph builder: which tensors it keeps beside a parameter (slots), which scalars
 * a step computes on the host, and the update as nodes. It knows no memory, no engine, and no other rank.
 */
import type { GraphBuilder, Value } from "../graph/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { ParameterSelector } from "./select.ts";

/** What an optimizer asks of a parameter. */
export interface ParameterInfo {
  readonly name: string;
  readonly type: TensorType;
  /** Whether the model would have it decay. */
  readonly decay: boolean;
}

export interface SlotSpec {
  readonly name: string;
  /** Its type for a parameter of `type`; the same unless told. Half parameters count as float32. Starts as zeros. */
  readonly typeOf?: (type: TensorType) => TensorType;
}

/** What the host knows before the update of a step. */
export interface StepContext {
  /** Counted from 1. */
  readonly step: number;
  readonly learningRate: number;
  /** The flat gradients times this are the gradients: 1/micro-batches and clipping, in one. */
  readonly gradientScale: number;
  /** 0 for parameters that do not decay. */
  readonly weightDecay: number;
}

export interface UpdateContext {
  readonly builder: GraphBuilder;
  readonly parameter: Value;
  /** Not yet scaled: times the scalar that the rule made of `gradientScale`. */
  readonly gradient: Value;
  /** What the slot holds now. */
  slot(name: string): Value;
  /** A number that the rule's `scalars` gives under this name, as a scalar of the gradient's type. */
  scalar(name: string): Value;
  /** Whether this parameter decays: a rule then adds its decay nodes. */
  readonly decays: boolean;
}

export interface Updated {
  readonly parameter: Value;
  readonly slots: Readonly<Record<string, Value>>;
}

export interface UpdateRule {
  readonly name: string;
  /**
   * - `element`: the update looks at one element at a time, so it sweeps over tiles of flat vectors in place;
   * - `tensor`: it needs the whole tensor and its shape.
   */
  readonly granularity: "element" | "tensor";
  /**
   * Whether results may be written over what they are made of. Default: true. False where the update reads the
   * whole parameter before it writes: results then go to a scratch vector first.
   */
  readonly inPlace?: boolean;
  readonly learningRate: number;
  readonly weightDecay: number;
  /** Which of its parameters decay; undefined: those that the model says. */
  readonly decay: ParameterSelector | undefined;
  readonly slots: readonly SlotSpec[];
  /** The scalars of a step: all arithmetic that does not touch a tensor. The keys never change. */
  readonly scalars: (context: StepContext) => Readonly<Record<string, number>>;
  readonly update: (context: UpdateContext) => Updated;
}

/** Rules and their parameters: the first rule that selects a parameter updates it. */
export interface Optimizer {
  readonly name: string;
  readonly rules: readonly { readonly rule: UpdateRule; readonly selects: ParameterSelector }[];
}

/** The type in which parameters are updated: half floats in float32, for AdamW's epsilon is zero in float16. */
export function updateType(type: TensorType): TensorType {
  const isHalf = type.dtype === "float16" || type.dtype === "bfloat16";
  return isHalf ? { ...type, dtype: "float32" } : type;
}

export function optimizerOf(rule: UpdateRule): Optimizer {
  return { name: rule.name, rules: [{ rule, selects: {} }] };
}
