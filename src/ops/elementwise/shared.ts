/** What elementwise operators have in common: types, and gradient rules written as a derivative. */
import { sumTo } from "../../functional/index.ts";
import type {
  AttributeReader,
  AttributeSpec,
  BatchRule,
  ElementForm,
  GradientContext,
  InferContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { broadcastShapes, type DType, isFloat, type TensorType } from "../../tensor/index.ts";
import { byElement } from "../divisions.ts";
import { broadcastType, flopsPerElement } from "../shared.ts";

/**
 * The values from which the gradient of y = f(x) is computed. Use `y` again where that saves work.
 */
export interface UnaryRule {
  readonly x: Value;
  readonly y: Value;
  readonly dy: Value;
  readonly attributes: AttributeReader;
}

export interface UnaryOptions {
  readonly attributes?: Readonly<Record<string, AttributeSpec>>;
  /** The number of floating-point operations for each element. Default: 1. */
  readonly flops?: number;
  /** Whether integers are supported. Default: false. */
  readonly integers?: boolean;
  /**
   * Whether engines may compute it in several passes that read the input again, so that it cannot
   * run in place. Default: false.
   */
  readonly severalPasses?: boolean;
  readonly batch?: BatchRule;
}

/** y = f(x) for floats; `rule` gives dx. */
export function unary(
  name: string,
  rule: (values: UnaryRule) => Value,
  options: UnaryOptions = {},
): OperatorDefinition {
  return {
    name,
    inputs: [1, 1],
    outputs: [1, 1],
    attributes: options.attributes ?? {},
    infer: (context) => [numberType(context, options.integers === true)],
    gradient: (context) => [
      rule({
        x: context.input(0),
        y: context.output(0),
        dy: context.gradient(0),
        attributes: context.attributes,
      }),
    ],
    flops: flopsPerElement(options.flops ?? 1),
    inPlace: options.severalPasses !== true,
    within: "elements",
    divisions: byElement,
    ...(options.batch && { batch: options.batch }),
  };
}

/** y = f(x), piecewise constant: its gradient is zero wherever it exists. */
export function stepFunction(name: string, options: UnaryOptions = {}): OperatorDefinition {
  return {
    ...unary(name, ({ dy }) => dy, options),
    gradient: { zero: `${name} is piecewise constant` },
  };
}

/**
 * y = f(a, b) with broadcasting, for numbers. `rule` returns functions for da and db, of which only
 * the needed ones are called. They sum over broadcast dims themselves, by `toA` and `toB`:
 * operations after the sum cost less.
 */
export function binary(
  name: string,
  rule: (values: BinaryRule) => readonly [() => Value, () => Value | undefined],
  options: { flops?: number; batch?: BatchRule; form?: ElementForm } = {},
): OperatorDefinition {
  return {
    name,
    inputs: [2, 2],
    outputs: [1, 1],
    attributes: {},
    infer: (context) => {
      const type = broadcastType(context);
      if (type.dtype === "bool") context.failType("takes numbers");
      return [type];
    },
    gradient: (context) => {
      const [a, b] = [context.input(0), context.input(1)];
      const [da, db] = rule({
        a,
        b,
        y: context.output(0),
        dy: context.gradient(0),
        toA: (value) => sumTo(value, a.shape),
        toB: (value) => sumTo(value, b.shape),
      });
      return [context.needs(0) ? da() : undefined, context.needs(1) ? db() : undefined];
    },
    flops: flopsPerElement(options.flops ?? 1),
    inPlace: true,
    within: "elements",
    divisions: byElement,
    ...(options.batch && { batch: options.batch }),
    ...(options.form && { form: options.form }),
  };
}

export interface BinaryRule {
  readonly a: Value;
  readonly b: Value;
  readonly y: Value;
  readonly dy: Value;
  /** Sums a gradient of the shape of y to the shape of a. */
  readonly toA: (gradient: Value) => Value;
  readonly toB: (gradient: Value) => Value;
}

/**
 * f(a, b, …) of several inputs of one type, broadcast; `rule` returns the gradient of each needed
 * input.
 */
export function variadic(
  name: string,
  rule: (context: GradientContext, index: number) => Value,
  batch?: BatchRule,
): OperatorDefinition {
  return {
    name,
    inputs: [1, Number.POSITIVE_INFINITY],
    outputs: [1, 1],
    attributes: {},
    infer: (context) => [broadcastType(context)],
    gradient: (context) =>
      context.inputs.map((input, index) =>
        input !== undefined && context.needs(index)
          ? sumTo(rule(context, index), input.shape)
          : undefined,
      ),
    flops: (context) => flopsPerElement(Math.max(1, context.inputs.length - 1))(context),
    // With three or more inputs, engines accumulate in the output and read the other inputs later.
    inPlace: false,
    within: "elements",
    divisions: byElement,
    ...(batch && { batch }),
  };
}

/** A bool from two inputs of one type: a comparison, or a logical operation on bools. */
export function predicate(
  name: string,
  options: { takes?: (dtype: DType) => boolean; takesWhat?: string; form?: ElementForm } = {},
): OperatorDefinition {
  return {
    name,
    inputs: [2, 2],
    outputs: [1, 1],
    attributes: {},
    infer: (context) => {
      const { dtype, shape } = broadcastType(context);
      if (options.takes?.(dtype) === false) context.failType(`takes ${options.takesWhat}`);
      return [{ dtype: "bool", shape }];
    },
    gradient: { zero: `${name} gives a bool` },
    flops: flopsPerElement(),
    inPlace: false,
    within: "elements",
    divisions: byElement,
    ...(options.form && { form: options.form }),
  };
}

/** The options of a `predicate` over types that can be ordered. */
export const NUMBERS = { takes: (dtype: DType) => dtype !== "bool", takesWhat: "numbers" };

/** Bitwise operations on integers, with an integer result. */
export function bitwise(name: string, attributes: OperatorDefinition["attributes"] = {}) {
  return {
    name,
    inputs: [2, 2],
    outputs: [1, 1],
    attributes,
    infer: (context) => {
      const type = broadcastType(context);
      if (isFloat(type.dtype) || type.dtype === "bool") context.failType("takes integers");
      return [type];
    },
    gradient: { zero: `${name} gives integers` },
    flops: flopsPerElement(),
    inPlace: false,
    within: "elements",
    divisions: byElement,
  } satisfies OperatorDefinition;
}

/** The type of input 0, which must be a float (or, with `integers`, a number). */
export function numberType(context: InferContext, integers: boolean): TensorType {
  const type = context.input(0);
  if (integers ? type.dtype === "bool" : !isFloat(type.dtype)) {
    context.failType(integers ? "takes numbers" : "takes floats");
  }
  return type;
}

/** The shape that some of the inputs broadcast to. */
export function broadcastOf(context: InferContext, ...indices: readonly number[]): number[] {
  const shape = broadcastShapes(...indices.map((index) => context.input(index).shape));
  return shape ?? context.fail("shapes do not broadcast");
}
