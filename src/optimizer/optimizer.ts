/**
 * A rule is how an optimizer updates parameters: the tensors that it keeps with a parameter
 * (slots), the scalars that a step computes on the host, and the update as nodes. It knows no
 * memory, no engine, and no other rank.
 */
import type { GraphBuilder, Value } from "../graph/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { ParameterSelector } from "./select.ts";

/** What an optimizer needs to know of a parameter. */
export interface ParameterInfo {
  readonly name: string;
  readonly type: TensorType;
  /** Whether weight decay applies according to the model. */
  readonly decay: boolean;
}

export interface SlotSpec {
  readonly name: string;
  /**
   * The slot's type for a parameter of `type`; a parameter of a half type counts as float32. Slots
   * start as zeros. Default: the parameter's type.
   */
  readonly typeOf?: (type: TensorType) => TensorType;
}

/** What the host knows before the update of a step. */
export interface StepContext {
  /** The number of the step, counted from 1. */
  readonly step: number;
  readonly learningRate: number;
  /**
   * The factor that turns the flat gradients into the gradients: 1/micro-batches and clipping
   * together.
   */
  readonly gradientScale: number;
  /** The weight decay; 0 for parameters that do not decay. */
  readonly weightDecay: number;
}

export interface UpdateContext {
  readonly builder: GraphBuilder;
  readonly parameter: Value;
  /**
   * The gradient before scaling. The rule multiplies it by the scalar that it computes from
   * `gradientScale`.
   */
  readonly gradient: Value;
  /** The present value of a slot. */
  slot(name: string): Value;
  /**
   * The number that the rule's `scalars` returns under this name, as a scalar of the gradient's
   * type.
   */
  scalar(name: string): Value;
  /** Whether this parameter decays, so that the rule adds its decay nodes. */
  readonly decays: boolean;
}

export interface Updated {
  readonly parameter: Value;
  readonly slots: Readonly<Record<string, Value>>;
}

export interface UpdateRule {
  readonly name: string;
  /**
   * - `element`: each element is updated separately, so the update runs over tiles of flat
   *   vectors in place;
   * - `tensor`: the update needs the whole tensor and its shape.
   */
  readonly granularity: "element" | "tensor";
  /**
   * Whether results may be written over the values that they are computed from. False if the update
   * reads the whole parameter before it writes: results then go to a scratch vector first. Default:
   * true.
   */
  readonly inPlace?: boolean;
  readonly learningRate: number;
  readonly weightDecay: number;
  /** The parameters of the rule that decay. Undefined: those that the model selects. */
  readonly decay: ParameterSelector | undefined;
  readonly slots: readonly SlotSpec[];
  /**
   * Computes the scalars of a step, which is all arithmetic that does not involve a tensor. The
   * keys never change.
   */
  readonly scalars: (context: StepContext) => Readonly<Record<string, number>>;
  readonly update: (context: UpdateContext) => Updated;
}

/**
 * The rules with the parameters that they select: the first rule that selects a parameter updates
 * it.
 */
export type Rules = readonly {
  readonly rule: UpdateRule;
  readonly selects: ParameterSelector;
}[];

/**
 * The type in which parameters are updated: half types in float32, because AdamW's epsilon is zero
 * in float16.
 */
export function updateType(type: TensorType): TensorType {
  const isHalf = type.dtype === "float16" || type.dtype === "bfloat16";
  return isHalf ? { ...type, dtype: "float32" } : type;
}

export function forAll(rule: UpdateRule): Rules {
  return [{ rule, selects: {} }];
}
