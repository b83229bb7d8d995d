import assert from "node:assert/strict";
import { test } from "node:test";
import { divisionTrials } from "../../../test/support/division-check.ts";
import { drawn } from "../../../test/support/random.ts";
import { type Tensor, tensorFrom } from "../../tensor/index.ts";
import { indexing } from "./index.ts";

const { onTwo, tried } = divisionTrials();

function ids(shape: number[], places: number, step = 5): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  // Every third index counts from the end.
  const numbers = Array.from({ length: count }, (_, at) => {
    const index = (at * step) % places;
    return at % 3 === 2 ? index - places : index;
  });
  return tensorFrom("int64", shape, numbers);
}

const constant = (...numbers: number[]) => ({
  constant: tensorFrom("int64", [numbers.length], numbers),
});

test("rows are looked up in a table of which each rank has a part", () => {
  assert.deepEqual(onTwo({ op: "Gather", inputs: [drawn([12, 6]), ids([6, 5], 12)] }), [
    "whole, whole -> whole",
    "whole, 0 -> 0",
    "1, whole -> 2",
    "0, whole -> partial",
    "partial, whole -> partial",
  ]);
  const attributes = { axis: -2 };
  const found = onTwo({ op: "Gather", attributes, inputs: [drawn([6, 12, 5]), ids([6], 12)] });
  assert.ok(found.includes("1, whole -> partial"));
  onTwo({ op: "Gather", inputs: [drawn([5, 7]), ids([], 5)] });
  const elements = { op: "GatherElements", attributes: { axis: 1 } };
  const picked = onTwo({ ...elements, inputs: [drawn([6, 12]), ids([6, 6], 12)] });
  assert.ok(picked.includes("1, whole -> partial"));
  assert.ok(picked.includes("0, 0 -> 0"));
  onTwo({ ...elements, inputs: [drawn([5, 7]), ids([5, 6], 7)] });
});

test("booleans are never terms of a sum", () => {
  const flags = tensorFrom("bool", [6, 1], [1, 0, 1, 0, 0, 1]);
  const found = onTwo({ op: "Gather", inputs: [flags, ids([6], 6)] });
  assert.deepEqual(found, ["whole, whole -> whole", "whole, 0 -> 0"]);
});

test("index tuples are looked up in a part of any dim", () => {
  assert.deepEqual(onTwo({ op: "GatherND", inputs: [drawn([6, 6, 12]), ids([6, 5, 2], 6)] }), [
    "whole, whole -> whole",
    "whole, 0 -> 0",
    "0, whole -> partial",
    "1, whole -> partial",
    "2, whole -> 2",
    "partial, whole -> partial",
  ]);
  const attributes = { batch_dims: 1 };
  const shared = onTwo({
    op: "GatherND",
    attributes,
    inputs: [drawn([6, 12, 5]), ids([6, 12, 1], 12)],
  });
  assert.ok(shared.includes("0, 0 -> 0"));
  assert.ok(shared.includes("1, whole -> partial"));
  onTwo({ op: "GatherND", inputs: [drawn([5, 7]), ids([7, 1], 5)] });
});

test("what is scattered is written to the part of the rank that has the position", () => {
  for (const reduction of ["none", "add", "mul", "max", "min"]) {
    const attributes = { reduction };
    const rows = [drawn([12, 6]), ids([6, 1], 12), drawn([6, 6], { seed: 2 })];
    const byRows = onTwo({ op: "ScatterND", attributes, inputs: rows });
    assert.ok(byRows.includes("0, whole, whole -> 0"));
    assert.ok(byRows.includes("1, whole, 1 -> 1"));
    assert.equal(byRows.includes("partial, 0, 0 -> partial"), reduction === "add");
    const places = tensorFrom("int64", [3, 2], [0, 5, -1, 2, 3, -6]);
    const byPair = [drawn([6, 6]), places, drawn([3])];
    assert.ok(
      onTwo({ op: "ScatterND", attributes, inputs: byPair }).includes("1, whole, whole -> 1"),
    );
    const elements = [drawn([12, 6]), ids([6, 6], 12, 2), drawn([6, 6], { seed: 3 })];
    const unique = tensorFrom(
      "int64",
      [6, 6],
      Array.from({ length: 36 }, (_, at) => Math.floor(at / 6) * 2 - (at % 2 === 0 ? 0 : 12)),
    );
    const written = reduction === "none" ? elements.with(1, unique) : elements;
    const halves = [[1, 1]];
    const scattered = { op: "ScatterElements", attributes, inputs: written, proportions: halves };
    const found = onTwo({ ...scattered, ranks: [2] });
    assert.ok(found.includes("0, whole, whole -> 0"));
  }
  onTwo({ op: "ScatterND", inputs: [drawn([5, 7]), ids([2, 1], 5), drawn([2, 7])] });
});

test("rows that are moved within their own sample are cut by samples", () => {
  const tuples = (rows: readonly number[]) => {
    const numbers = rows.flatMap((row, at) => [row, at % 4, row, (at + 2) % 4]);
    return { constant: tensorFrom("int64", [6, 2, 2], numbers) };
  };
  const [own, other] = [tuples([0, 1, 2, 3, 4, 5]), tuples([0, 1, 2, 4, 3, 5])];
  const [data, updates] = [drawn([6, 4, 5]), drawn([6, 2, 5], { seed: 2 })];
  const byRow = "0, 0, 0 -> 0";
  assert.ok(onTwo({ op: "ScatterND", inputs: [data, own, updates] }).includes(byRow));
  assert.ok(!onTwo({ op: "ScatterND", inputs: [data, other, updates] }).includes(byRow));
  const picked = (from: typeof own) => onTwo({ op: "GatherND", inputs: [data, from] });
  assert.ok(picked(own).includes("0, 0 -> 0") && !picked(other).includes("0, 0 -> 0"));
});

test("OneHot is divided by indices and by classes", () => {
  const values = drawn([2]);
  const outside = tensorFrom("int64", [6], [0, -1, 11, 12, -13, 5]);
  assert.deepEqual(onTwo({ op: "OneHot", inputs: [outside, constant(12), values] }), [
    "whole, whole, whole -> whole",
    "0, whole, whole -> 0",
    "whole, whole, whole -> 1",
    "whole, whole, partial -> partial",
  ]);
  onTwo({ op: "OneHot", attributes: { axis: 0 }, inputs: [outside, constant(7), values] });
});

test("elements that are ordered or summed along a dim stay together", () => {
  const x = drawn([6, 12, 5]);
  const axis = { constant: tensorFrom("int64", [], [-2]) };
  assert.deepEqual(onTwo({ op: "CumSum", inputs: [x, axis] }), [
    "whole, whole -> whole",
    "0, whole -> 0",
    "partial, whole -> partial",
  ]);
  const top = onTwo({ op: "TopK", attributes: { axis: 1 }, inputs: [x, constant(3)], outputs: 2 });
  assert.deepEqual(top, ["whole, whole -> whole, whole", "0, whole -> 0, 0"]);
  const lengths = tensorFrom("int64", [12], [1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1]);
  const reversed = onTwo({ op: "ReverseSequence", inputs: [x, lengths] });
  assert.ok(reversed.includes("1, 0 -> 1"));
});

test("every operator of the family was divided", () => {
  const ops = Object.values(indexing).map(({ name }) => name);
  assert.deepEqual([...tried].sort(), ops.sort());
});
