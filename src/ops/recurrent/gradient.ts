/**
 * The gradient of a recurrence. It is unrolled, and its steps are differentiated one after the
 * other; but the gradients of the weights, like that of the input, are a single product each over
 * all steps. The unrolled steps replace the node, so nothing is computed twice.
 */
import { add, concat, reshape, sumTo, zerosLike } from "../../functional/index.ts";
import type { GradientContext, Value } from "../../graph/index.ts";
import type { Cell } from "./cell.ts";
import { tallProduct } from "./orientation.ts";
import { lengthsOf, reverseWithin, type Trace, unroll } from "./unroll.ts";

export function recurrentGradient(cell: Cell) {
  return (context: GradientContext): (Value | undefined)[] => {
    const { outputs, traces } = unroll(cell, context);
    for (const [index, output] of outputs.entries()) context.replace(index, output);
    const reached = outputs.flatMap((output, index) => {
      const seed = context.gradients[index];
      return seed === undefined ? [] : [{ output, seed }];
    });
    const leaves = traces.flatMap(leavesOf);
    const found = context.backward(
      reached.map(({ output }) => output),
      leaves,
      reached.map(({ seed }) => seed),
    );
    const gradients = new Map(leaves.map((leaf, index) => [leaf, found[index]]));
    const of = (value: Value) => gradients.get(value) ?? zerosLike(value);
    const parts = traces.map((trace, index) =>
      partsOf(context, trace, of, isTurned(context, index)),
    );
    return joined(context, parts);
  };
}

/**
 * The values at which the gradient of the steps is computed: before the products with weights, and
 * at the first state.
 */
function leavesOf({ projected, products, first, peephole }: Trace): Value[] {
  const results = [...products.values()].flatMap((kept) => kept.results);
  const ends = [first.h, first.c, peephole].filter((value) => value !== undefined);
  return [projected, ...results, ...ends];
}

/** Whether direction `index` read its input reversed within its lengths. */
function isTurned(context: GradientContext, index: number): boolean {
  if (lengthsOf(context) === undefined) return false;
  return index === 1 || context.attributes.string("direction") === "reverse";
}

/**
 * The gradients of one direction, by input: its part of each, and its term of the gradient of the
 * input.
 */
function partsOf(
  context: GradientContext,
  trace: Trace,
  of: (value: Value) => Value,
  turned: boolean,
): (Value | undefined)[] {
  const [steps, batch] = context.input(0).shape as [number, number];
  const own = of(trace.projected);
  const inner = [...trace.products].sort(([a], [b]) => a - b);
  const recurrent = inner.map(([, { factors, results }]) => ({
    h: trace.form.rows(factors),
    d: trace.form.rows(results.map(of)),
  }));
  const dx = () => {
    const rows = reshape(tallProduct(own, trace.weight, {}), [
      steps,
      batch,
      trace.x.shape[1] as number,
    ]);
    return turned ? reverseWithin(rows, context.input(4)) : rows;
  };
  const bias = () => {
    const sum = (rows: Value) => sumTo(rows, rows.shape.slice(1));
    return concat([sum(own), ...recurrent.map(({ d }) => sum(d))], 0);
  };
  const peephole = () => reshape(of(trace.peephole as Value), [-1]);
  const rules: readonly (() => Value | undefined)[] = [
    dx,
    () => tallProduct(own, trace.x, { transA: true }),
    () =>
      concat(
        recurrent.map(({ d, h }) => tallProduct(d, h, { transA: true })),
        0,
      ),
    bias,
    () => undefined,
    () => of(trace.first.h),
    () => trace.first.c && of(trace.first.c),
    peephole,
  ];
  return context.inputs.map((_, index) => (context.needs(index) ? rules[index]?.() : undefined));
}

/** The terms of the input's gradient are added; all other gradients are concatenated. */
function joined(
  context: GradientContext,
  parts: readonly (readonly (Value | undefined)[])[],
): (Value | undefined)[] {
  return context.inputs.map((input, index) => {
    const own = parts.map((part) => part[index]).filter((value) => value !== undefined);
    if (input === undefined || own.length === 0) return undefined;
    if (index === 0) return own.reduce((a, b) => add(a, b));
    return reshape(
      concat(
        own.map((value) => reshape(value, [1, ...input.shape.slice(1)])),
        0,
      ),
      input.shape,
    );
  });
}
