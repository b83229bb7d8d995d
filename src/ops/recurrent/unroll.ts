/**
 * Unrolls a recurrence step by step into other operators. The product of the input with its weights
 * is computed once for all steps. The values of the steps that the gradient needs are kept in a
 * trace.
 */
import {
  add,
  cast,
  concat,
  full,
  less,
  range,
  reshape,
  slice,
  split,
  where,
} from "../../functional/index.ts";
import type { AttributeReader, GraphBuilder, Value } from "../../graph/index.ts";
import { toNumbers } from "../../tensor/index.ts";
import { cellFunctions } from "./activations.ts";
import type { Cell, State } from "./cell.ts";
import { type Orientation, orientationOf, tallProduct } from "./orientation.ts";

/** The parts of a node that unrolling needs. */
export interface RecurrentNode {
  readonly builder: GraphBuilder;
  readonly attributes: AttributeReader;
  readonly inputs: readonly (Value | undefined)[];
  input(index: number): Value;
}

/**
 * The recurrent products with one part of the rows of R: for each step, the factor and the result.
 */
export interface Products {
  readonly factors: Value[];
  readonly results: Value[];
}

/**
 * The values that the gradient needs of one direction. No two directions share any of these values.
 */
export interface Trace {
  /** (steps · batch, inputs), in the order in which the products read it. */
  readonly x: Value;
  readonly weight: Value;
  /** (steps · batch, rows) */
  readonly projected: Value;
  readonly form: Orientation;
  /** The recurrent products, by their first row. */
  readonly products: Map<number, Products>;
  /** (batch, hidden); `c` exists for LSTM only. */
  readonly first: State;
  /** (1, 3 · hidden) */
  readonly peephole: Value | undefined;
}

export interface Unrolled {
  /** Y and the last states, as the outputs of the node. */
  readonly outputs: readonly Value[];
  readonly traces: readonly Trace[];
}

export function unroll(cell: Cell, node: RecurrentNode): Unrolled {
  const direction = node.attributes.string("direction");
  const reversed = direction === "bidirectional" ? [false, true] : [direction === "reverse"];
  const runs = reversed.map((backwards, index) => runDirection(cell, node, index, backwards));
  const [steps, batch] = node.input(0).shape as [number, number];
  const hidden = node.input(2).shape[2] as number;
  const y = concat(
    runs.map((run) => reshape(run.y, [steps, 1, batch, hidden])),
    1,
  );
  const last = (pick: (state: State) => Value) =>
    concat(
      runs.map((run) => reshape(pick(run.last), [1, batch, hidden])),
      0,
    );
  const h = last((state) => state.h);
  const outputs = cell.form.cell ? [y, h, last((state) => state.c as Value)] : [y, h];
  return { outputs, traces: runs.map((run) => run.trace) };
}

/** Reverses each sequence within its length; applying it twice changes nothing. */
export function reverseWithin(x: Value, lengths: Value): Value {
  return x.builder.one("ReverseSequence", [x, cast(lengths, "int64")], {
    batch_axis: 1,
    time_axis: 0,
  });
}

/** Input 4 (the lengths), unless every sequence is known to be complete. */
export function lengthsOf(node: RecurrentNode): Value | undefined {
  const lengths = node.inputs[4];
  const known = lengths && node.builder.constantOf(lengths);
  const [steps] = node.input(0).shape;
  return known !== undefined && toNumbers(known).every((n) => n === steps) ? undefined : lengths;
}

/** Part `index` of a tensor whose first dim is the direction. */
function partOf(value: Value, index: number): Value {
  const [count = 1, ...rest] = value.shape;
  const parts = split(value, new Array<number>(count).fill(1), 0);
  return reshape(parts[index] as Value, rest);
}

interface DirectionRun {
  readonly y: Value;
  readonly last: State;
  readonly trace: Trace;
}

function runDirection(
  cell: Cell,
  node: RecurrentNode,
  index: number,
  backwards: boolean,
): DirectionRun {
  const [steps, batch, inputs] = node.input(0).shape as [number, number, number];
  const hidden = node.input(2).shape[2] as number;
  const lengths = lengthsOf(node);
  const part = (at: number) => {
    const value = node.inputs[at];
    return value && partOf(value, index);
  };
  const { dtype } = node.input(0);
  // The value is made separate, so that nothing from which the input is computed counts as part of
  // the recurrence.
  const own = (value: Value | undefined) =>
    node.builder.one("Identity", [value ?? full(node.builder, dtype, [batch, hidden], 0)]);
  const rows = cell.form.gates * hidden;
  const bias = part(3);
  const [wb, rb] = bias === undefined ? [] : split(bias, [rows, rows], 0);
  const inner = cell.innerBias(node.attributes);
  const weight = part(1) as Value;
  const form = orientationOf(batch, hidden);
  const turned = backwards && lengths !== undefined;
  const x = reshape(turned ? reverseWithin(node.input(0), lengths) : node.input(0), [
    steps * batch,
    inputs,
  ]);
  const added = wb !== undefined && rb !== undefined && !inner ? add(wb, rb) : wb;
  const projected = tallProduct(x, weight, { transB: true, ...(added && { c: added }) });
  const peephole = node.inputs[7] && own(reshape(part(7) as Value, [1, 3 * hidden]));
  const first: State = cell.form.cell ? { h: own(part(5)), c: own(part(6)) } : { h: own(part(5)) };
  const products = new Map<number, Products>();
  const trace: Trace = { x, weight, form, projected, products, first, peephole };
  const multiply = productWith(form, part(2) as Value, products);
  const pieces = form.steps(projected, steps);
  const valid = lengths && stepsWithin(lengths, steps).map(form.turn);
  const fixed = {
    hidden,
    attributes: node.attributes,
    functions: functionsOf(cell, node.attributes, index),
    gates: (value: Value, sizes: readonly number[]) =>
      split(
        value,
        sizes.map((size) => size * hidden),
        form.axis,
      ),
    recurrentBias: inner && rb !== undefined ? form.turn(reshape(rb, [1, rows])) : undefined,
    peepholes: peephole && split(peephole, [hidden, hidden, hidden], 1).map(form.turn),
  };
  const order = pieces.map((_, t) => (backwards && !turned ? steps - 1 - t : t));
  const step = (state: State, t: number) =>
    cell.step({
      ...fixed,
      state,
      projected: pieces[t] as Value,
      product: (...given) => multiply(t, ...given),
    });
  const { results, state } = runSteps(order, step, mapState(first, form.turn), valid);
  const y = reshape(form.rows(results), [steps, batch, hidden]);
  return { y: turned ? reverseWithin(y, lengths) : y, last: mapState(state, form.turn), trace };
}

/**
 * The state after each step, by its position in the sequence (0 after its end), and the last state.
 */
function runSteps(
  order: readonly number[],
  step: (state: State, t: number) => State,
  first: State,
  valid: readonly Value[] | undefined,
): { results: Value[]; state: State } {
  const results: Value[] = [];
  let state = first;
  for (const t of order) {
    const next = step(state, t);
    const isValid = valid?.[t];
    state = isValid === undefined ? next : held(isValid, next, state);
    results[t] = isValid === undefined ? state.h : where(isValid, state.h, 0);
  }
  return { results, state };
}

function functionsOf(cell: Cell, attributes: AttributeReader, index: number) {
  const both = attributes.string("direction") === "bidirectional";
  const all = cellFunctions(attributes, cell.defaults, both ? 2 : 1);
  const count = cell.form.activations;
  return all.slice(index * count, (index + 1) * count);
}

/** Multiplies by rows of `weight` and records the factor of each step. */
function productWith(form: Orientation, weight: Value, products: Map<number, Products>) {
  const [rows = 0] = weight.shape;
  const parts = new Map<number, Value>();
  return (t: number, start: number, size: number, h: Value, plus: Value | undefined): Value => {
    const part =
      parts.get(start) ??
      (size === rows ? weight : slice(weight, [{ axis: 0, start, end: start + size }]));
    parts.set(start, part);
    const result = form.product(part, h, plus);
    const kept = products.get(start) ?? { factors: [], results: [] };
    products.set(start, kept);
    kept.factors[t] = h;
    kept.results[t] = result;
    return result;
  };
}

/** For each step, which sequences have not ended: bool (batch, 1). */
function stepsWithin(lengths: Value, steps: number): Value[] {
  const { builder } = lengths;
  const [batch = 0] = lengths.shape;
  const time = reshape(range(builder, "int32", 0, steps), [steps, 1, 1]);
  const valid = less(time, reshape(lengths, [1, batch, 1]));
  return split(valid, new Array<number>(steps).fill(1), 0).map((own) => reshape(own, [batch, 1]));
}

function mapState({ h, c }: State, f: (x: Value) => Value): State {
  return c === undefined ? { h: f(h) } : { h: f(h), c: f(c) };
}

/** Sequences that have ended keep their state. */
function held(valid: Value, next: State, before: State): State {
  const h = where(valid, next.h, before.h);
  if (next.c === undefined || before.c === undefined) return { h };
  return { h, c: where(valid, next.c, before.c) };
}
