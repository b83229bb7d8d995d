/**
 * Brings tokens to the places of their experts and back. Rows are moved by writing them to places
 * that do not repeat: the gradient of such a write is a read, so that both passes copy rows, and
 * none sums by index. All places are within a sample, so that no sample depends on another one.
 */
import {
  add,
  cast,
  concat,
  expand,
  gatherElements,
  less,
  mul,
  range,
  reshape,
  scatterElements,
  scatterND,
  slice,
  sub,
  transpose,
  unsqueeze,
  where,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { chosenBefore, type Routing } from "./routing.ts";

/** The places of the choices of each sample. Choice k of token l has the number l · K + k. */
export interface Places {
  /** The number of tokens that an expert computes of each sample. */
  readonly capacity: number;
  /**
   * int64 (B, L · K): the place of each choice: expert · capacity + the number of tokens that came
   * before. Choices beyond the capacity have places of their own behind those of all experts.
   */
  readonly of: Value;
  /**
   * int64 (B, E · capacity): the number of the choice that has each place. Empty places have
   * numbers of their own behind those of all choices.
   */
  readonly choices: Value;
  /** bool (B, L, K): whether the choice is within the capacity. */
  readonly isKept: Value;
}

/**
 * Tokens are served in their order, whatever their choice: what is beyond the capacity depends on
 * tokens before it, never on those after it, so that a causal model stays causal.
 */
export function placesOf(routing: Routing, capacity: number): Places {
  const { choices } = routing;
  const { builder } = choices;
  const [batch, tokens, topK] = choices.shape as [number, number, number];
  const experts = routing.chosen.shape[3] as number;
  const [count, room] = [tokens * topK, experts * capacity];
  const position = gatherElements(chosenBefore(routing), choices, 2);
  const isKept = less(position, capacity);
  const numbers = range(builder, "int64", 0, count);
  const behind = reshape(add(numbers, room), [tokens, topK]);
  const own = where(isKept, add(mul(choices, capacity), position), behind);
  const of = reshape(own, [batch, count]);
  const empty = expand(range(builder, "int64", count, 2 * count + room), [batch, count + room]);
  const held = scatterElements(empty, of, expand(numbers, [batch, count]), 1);
  return { capacity, of, choices: slice(held, [{ axis: 1, start: 0, end: room }]), isKept };
}

/** (B, L, width) → (E, B · capacity, width): the tokens of each expert; zeros at empty places. */
export function dispatch(tokens: Value, routing: Routing, places: Places): Value {
  const [batch, length, topK, experts] = routing.chosen.shape as [number, number, number, number];
  const width = tokens.shape[2] as number;
  const { capacity } = places;
  const copies = expand(unsqueeze(tokens, [2]), [batch, length, topK, width]);
  const rows = reshape(copies, [batch, length * topK, width]);
  const moved = moveRows(rows, places.of, experts * capacity);
  const own = transpose(reshape(moved, [batch, experts, capacity, width]), [1, 0, 2, 3]);
  return reshape(own, [experts, batch * capacity, width]);
}

/**
 * (E, B · capacity, width) → (B, L, K, width): what the experts made of each choice; zeros for
 * choices beyond the capacity.
 */
export function collect(made: Value, routing: Routing, places: Places): Value {
  const [batch, length, topK, experts] = routing.chosen.shape as [number, number, number, number];
  const width = made.shape[2] as number;
  const { capacity } = places;
  const bySample = transpose(reshape(made, [experts, batch, capacity, width]), [1, 0, 2, 3]);
  const rows = reshape(bySample, [batch, experts * capacity, width]);
  const moved = moveRows(rows, places.choices, length * topK);
  return reshape(moved, [batch, length, topK, width]);
}

/**
 * (B, rows, width) → (B, places, width): each row at its place. Places do not repeat; there are as
 * many behind the last one as there are rows, and what is written there is left out.
 */
function moveRows(rows: Value, to: Value, places: number): Value {
  const { builder, dtype } = rows;
  const [batch, count, width] = rows.shape as [number, number, number];
  const samples = reshape(range(builder, "int64", 0, batch), [batch, 1, 1]);
  const tuples = concat([expand(samples, [batch, count, 1]), unsqueeze(to, [-1])], 2);
  const moved = scatterND(zeros(to, dtype, [batch, places + count, width]), tuples, rows);
  return slice(moved, [{ axis: 1, start: 0, end: places }]);
}

/** Zeros that are made at run time: an engine would keep constants of this size for ever. */
function zeros(beside: Value, dtype: Value["dtype"], shape: readonly number[]): Value {
  const first = slice(beside, [{ axis: 1, start: 0, end: 1 }]);
  return expand(unsqueeze(cast(sub(first, first), dtype), [-1]), shape);
}
