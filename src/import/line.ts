/**
 * Constants that repeat along a dim, or rise along it by equal steps: `arange(batch)` and results
 * of index arithmetic. The arithmetic is a graph for the interpreter.
 */
import { add, expand, mul, range, reshape, slice, sub } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { interpret } from "../reference/index.ts";
import { isFloat, type Tensor } from "../tensor/index.ts";
import { cellOf } from "./vary.ts";

/**
 * x[i] = first + i · step along one dim, in which both have size 1. Without a step, all x[i] are
 * equal.
 */
export interface Line {
  readonly first: Tensor;
  readonly step: Tensor | undefined;
}

export function lineOf(tensor: Tensor, dim: number): Line | undefined {
  const along = tensor.shape.map((_, own) => own === dim);
  const cell = cellOf(tensor, along);
  if (cell !== undefined) return { first: cell, step: undefined };
  if (isFloat(tensor.dtype) || tensor.dtype === "bool") return undefined;
  const size = tensor.shape[dim] as number;
  const part = (x: Value, start: number, end: number) => slice(x, [{ axis: dim, start, end }]);
  const steps = compute([tensor], (x) => sub(part(x, 1, size), part(x, 0, size - 1)));
  const step = cellOf(steps, along);
  return step && { first: compute([tensor], (x) => part(x, 0, 1)), step };
}

/** The tensor of a line with `size` positions along the dim. */
export function drawLine({ first, step }: Line, dim: number, size: number): Tensor {
  const shape = first.shape.map((own, at) => (at === dim ? size : own));
  if (step === undefined) return compute([first], (x) => expand(x, shape));
  const flat = first.shape.map((_, at) => (at === dim ? size : 1));
  return compute([first, step], (x, by) => {
    const places = reshape(range(x.builder, first.dtype, 0, size), flat);
    return add(x, mul(places, by));
  });
}

function compute(tensors: readonly Tensor[], body: (x: Value, by: Value) => Value): Tensor {
  const builder = newBuilder("constants");
  const named = tensors.map((tensor, index) => [`x${index}`, tensor] as const);
  const values = named.map(([name, { dtype, shape }]) => builder.input(name, { dtype, shape }));
  const [x, by = x] = values as [Value, Value?];
  const result = body(x, by);
  const graph = builder.build([result]);
  return interpret(graph, Object.fromEntries(named))[result.name] as Tensor;
}
