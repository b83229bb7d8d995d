import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { concat, pad, slice, split, tile, tril, triu } from "../../functional/index.ts";
import type { AttributeInputs, GraphBuilder, Value } from "../../graph/index.ts";
import { interpret } from "../../reference/index.ts";
import { type Shape, tensorFrom, toNumbers } from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

const size = fc.integer({ min: 1, max: 4 });
const shapes = fc.array(size, { minLength: 1, maxLength: 4 });
const runs = { numRuns: 25, seed: 1, includeErrorInReport: true };

function compute(
  inputs: readonly Shape[],
  build: (b: GraphBuilder, x: Value[]) => Value,
): number[] {
  const builder = newBuilder("test");
  const tensors = inputs.map((shape) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return tensorFrom(
      "float32",
      shape,
      Array.from({ length: count }, (_, i) => i),
    );
  });
  const values = tensors.map((tensor, i) => builder.input(`x${i}`, tensor));
  const graph = builder.build([build(builder, values)]);
  const feeds = Object.fromEntries(tensors.map((tensor, i) => [`x${i}`, tensor]));
  return toNumbers(Object.values(interpret(graph, feeds))[0] as ReturnType<typeof tensorFrom>);
}

function one(op: string, shape: Shape, attributes: AttributeInputs = {}, ...lists: number[][]) {
  checkGradient({
    inputs: { x: shape },
    build: ({ x }, b) => b.one(op, [x, ...lists.map((list) => b.ints(list))], attributes),
  });
}

test("Reshape, Flatten, Squeeze, Unsqueeze, Identity: gradients", () => {
  fc.assert(
    fc.property(shapes, fc.nat(), (shape, pick) => {
      const axis = pick % (shape.length + 1);
      one("Flatten", shape, { axis });
      one("Unsqueeze", shape, {}, [axis]);
      one("Squeeze", shape.toSpliced(axis, 0, 1), {}, [axis]);
      one("Squeeze", shape.toSpliced(axis, 0, 1));
      one("Reshape", shape, {}, [-1, shape.at(-1) as number]);
      one("Identity", shape);
    }),
    runs,
  );
});

test("Transpose, Expand, Tile: gradients", () => {
  fc.assert(
    fc.property(shapes, size, fc.nat(), (shape, times, pick) => {
      one("Transpose", shape);
      one("Transpose", shape, { perm: shape.map((_, dim) => (dim + pick) % shape.length) });
      const dim = pick % shape.length;
      one("Expand", shape.with(dim, 1), {}, [2, ...shape.with(dim, times)]);
      checkGradient({
        inputs: { x: shape },
        build: ({ x }) =>
          tile(
            x as Value,
            shape.map((_, i) => (i === dim ? times : 1 + (i % 2))),
          ),
      });
    }),
    runs,
  );
});

test("Concat and Split: gradients, also if only some pieces reach the loss", () => {
  fc.assert(
    fc.property(shapes, size, size, fc.nat(), (shape, first, second, pick) => {
      const axis = pick % shape.length;
      const inputs = { a: shape.with(axis, first), b: shape.with(axis, second), c: shape };
      checkGradient({
        inputs,
        build: ({ a, b, c }) => concat([a as Value, b as Value, c as Value], axis - shape.length),
      });
      const whole = { x: shape.with(axis, first + second + 1) };
      const sizes = [first, 1, second];
      checkGradient({ inputs: whole, build: ({ x }) => split(x as Value, sizes, axis) });
      checkGradient({
        inputs: whole,
        build: ({ x }) => split(x as Value, sizes, axis)[pick % 3] as Value,
      });
      checkGradient({
        inputs: whole,
        build: ({ x }) => split(x as Value, sizes, axis).slice(1),
      });
    }),
    runs,
  );
});

test("Split without sizes: equal pieces, the last one smaller", () => {
  const middle = (b: GraphBuilder, [x]: Value[]) =>
    b.emit("Split", [x], { axis: 0, num_outputs: 3 }, { outputs: 3 })[2] as Value;
  assert.deepEqual(compute([[8]], middle), [6, 7]);
});

test("Slice: gradients for all steps and bounds, as NumPy counts them", () => {
  const bound = fc.integer({ min: -7, max: 7 });
  const step = fc.constantFrom(-3, -2, -1, 1, 2, 3);
  fc.assert(
    fc.property(bound, bound, step, step, (start, end, s0, s1) => {
      const ranges = [
        { axis: 0, start, end, step: s0 },
        { axis: -1, start: s1 > 0 ? 0 : 4, end: s1 > 0 ? 5 : -99, step: s1 },
      ];
      const shape = newBuilder("probe").input("x", { dtype: "float64", shape: [5, 2, 5] });
      if (slice(shape, ranges).shape.includes(0)) return;
      checkGradient({ inputs: { x: [5, 2, 5] }, build: ({ x }) => slice(x as Value, ranges) });
    }),
    { ...runs, numRuns: 60 },
  );
});

test("Slice: values against NumPy's", () => {
  const taken = (start: number, end: number, step: number) =>
    compute([[10]], (_, [x]) => slice(x as Value, [{ axis: 0, start, end, step }]));
  assert.deepEqual(taken(2, 8, 3), [2, 5]);
  assert.deepEqual(taken(-3, 99, 1), [7, 8, 9]);
  assert.deepEqual(taken(8, 2, -3), [8, 5]);
  assert.deepEqual(taken(-1, -99, -4), [9, 5, 1]);
  assert.deepEqual(taken(99, 0, -4), [9, 5, 1]);
});

test("Pad: gradients in every mode, cropping, and of the constant", () => {
  const amount = fc.integer({ min: 0, max: 2 });
  const mode = fc.constantFrom("constant", "reflect", "edge", "wrap");
  fc.assert(
    fc.property(amount, amount, amount, mode, (a, b, c, how) => {
      const kind = how as "constant";
      checkGradient({
        inputs: { x: [3, 2, 4] },
        build: ({ x }) => pad(x as Value, [a, 0, b], [b, 1, c], kind),
      });
    }),
    { ...runs, numRuns: 40 },
  );
  one("Pad", [4, 3], {}, [-1, 2, 1, -1]);
  checkGradient({
    inputs: { x: [3, 2], value: [] },
    build: ({ x, value }, b) => b.one("Pad", [x, b.ints([1, 2]), value, b.ints([-1])]),
  });
});

test("Pad: values in every mode", () => {
  const padded = (mode: "constant" | "reflect" | "edge" | "wrap") =>
    compute([[3]], (_, [x]) => pad(x as Value, [2], [1], mode));
  assert.deepEqual(padded("constant"), [0, 0, 0, 1, 2, 0]);
  assert.deepEqual(padded("reflect"), [2, 1, 0, 1, 2, 1]);
  assert.deepEqual(padded("edge"), [0, 0, 0, 1, 2, 2]);
  assert.deepEqual(padded("wrap"), [1, 2, 0, 1, 2, 0]);
});

test("Trilu, DepthToSpace, SpaceToDepth: gradients", () => {
  fc.assert(
    fc.property(size, size, fc.integer({ min: -2, max: 2 }), (rows, columns, k) => {
      checkGradient({ inputs: { x: [2, rows, columns] }, build: ({ x }) => tril(x as Value, k) });
      checkGradient({ inputs: { x: [rows, columns] }, build: ({ x }) => triu(x as Value, k) });
      one("DepthToSpace", [2, 8, rows, columns], { blocksize: 2 });
      one("DepthToSpace", [1, 8, rows, columns], { blocksize: 2, mode: "CRD" });
      one("SpaceToDepth", [1, 3, 2 * rows, 2 * columns], { blocksize: 2 });
    }),
    { ...runs, numRuns: 12 },
  );
});

test("Shape, Size, ConstantOfShape, Range, EyeLike, Constant: values", () => {
  const shape = [2, 3, 4];
  const on = (build: (b: GraphBuilder, x: Value) => Value) =>
    compute([shape], (b, [x]) => build(b, x as Value));
  assert.deepEqual(
    on((b, x) => b.one("Shape", [x])),
    shape,
  );
  assert.deepEqual(
    on((b, x) => b.one("Shape", [x], { start: -2, end: -1 })),
    [3],
  );
  assert.deepEqual(
    on((b, x) => b.one("Size", [x])),
    [24],
  );
  const seven = tensorFrom("int32", [1], [7]);
  assert.deepEqual(
    on((b) => b.one("ConstantOfShape", [b.ints([2])], { value: seven })),
    [7, 7],
  );
  const scalars = (b: GraphBuilder, ...numbers: number[]) =>
    numbers.map((number) => b.scalar("int64", number));
  assert.deepEqual(
    on((b) => b.one("Range", scalars(b, 5, -3, -3))),
    [5, 2, -1],
  );
  assert.deepEqual(
    compute([[2, 3]], (b, [x]) => b.one("EyeLike", [x], { k: 1, dtype: 7 })),
    [0, 1, 0, 0, 0, 1],
  );
  assert.deepEqual(
    on((b) => b.one("Constant", [], { value_ints: [3, 4] })),
    [3, 4],
  );
});

test("NonZero is refused with advice, and errors about shapes say what is wrong", () => {
  const x = newBuilder("bad").input("x", { dtype: "float32", shape: [2, 3] });
  const b = x.builder;
  assert.throws(() => b.one("NonZero", [x]), /depends on the data[^]*Where/);
  assert.throws(() => b.one("Concat", [x, b.ints([1])], { axis: 0 }), /one element type/);
  assert.throws(() => b.one("Reshape", [x, b.ints([4, -1])]), /cannot reshape 6 elements/);
  assert.throws(() => pad(x, [3, 0], [0, 0], "reflect"), /cannot pad dim 0/);
  assert.throws(() => b.one("Squeeze", [x, b.ints([0])]), /of size 1/);
});
