import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { randomSource } from "../../../test/support/random.ts";
import { backward } from "../../autodiff/index.ts";
import { reduceProd, reduceSum } from "../../functional/index.ts";
import { interpret } from "../../reference/index.ts";
import {
  elementCount,
  type Shape,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 0, maxLength: 4 });

/** A shape, some of its dims (undefined: all), and whether they are kept. */
const reductions = shapes.chain((shape) =>
  fc.record({
    shape: fc.constant(shape),
    axes: fc.option(
      fc.subarray(
        shape.map((_, dim) => (dim % 2 === 0 ? dim : dim - shape.length)),
        { minLength: Math.min(1, shape.length) },
      ),
      { nil: undefined },
    ),
    keepdims: fc.boolean(),
  }),
);

/** Checks first and second gradients. `tensor` gives the inputs if their values matter. */
function checkReduction(
  op: string,
  range: readonly [number, number],
  tensor: (shape: Shape) => Shape | Tensor = (shape) => shape,
): void {
  fc.assert(
    fc.property(reductions, ({ shape, axes, keepdims }) => {
      checkGradient({
        inputs: { x: tensor(shape) },
        build: ({ x }, b) => b.one(op, [x, axes?.length ? b.ints(axes) : undefined], { keepdims }),
        range,
        second: true,
      });
    }),
    { numRuns: 25, seed: 1, includeErrorInReport: true },
  );
}

/**
 * Returns numbers 0.1 apart in a random order, so that an extreme stays the extreme when one is
 * moved a little.
 */
function distinct(shape: Shape): Tensor {
  const next = randomSource(7);
  const numbers = Array.from({ length: elementCount(shape) }, (_, i) => ({ i, key: next() }));
  numbers.sort((a, b) => a.key - b.key);
  return tensorFrom(
    "float64",
    shape,
    numbers.map(({ i }) => 0.1 * i - 1),
  );
}

for (const op of ["ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"]) {
  test(`${op}: gradients, first and second`, () => checkReduction(op, [-2, 2]));
}
for (const op of ["ReduceL2", "ReduceLogSum", "ReduceL1"]) {
  test(`${op}: gradients, first and second`, () => checkReduction(op, [0.3, 2]));
}
for (const op of ["ReduceMax", "ReduceMin"]) {
  test(`${op}: gradients, first and second`, () => checkReduction(op, [-1, 1], distinct));
}

test("ReduceProd: first and second gradients with any number of zeros", () => {
  for (const zeros of [[2], [0, 3], [0, 1, 2, 3, 4]]) {
    const numbers = [1.5, -0.7, 2, 0.3, -1.1].map((value, i) => (zeros.includes(i) ? 0 : value));
    checkGradient({
      inputs: { x: tensorFrom("float64", [5], numbers) },
      build: ({ x }) => reduceProd(x as NonNullable<typeof x>),
      second: true,
    });
  }
});

function gradientAt(op: string, numbers: readonly number[]): number[] {
  const b = newBuilder("at");
  const tensor = tensorFrom("float64", [numbers.length], numbers);
  const x = b.input("x", tensor);
  const [dx] = backward([reduceSum(b.one(op, [x]), { keepdims: false })], [x]);
  const graph = b.build([dx as NonNullable<typeof dx>]);
  return toNumbers(Object.values(interpret(graph, { x: tensor }))[0] as Tensor);
}

test("ReduceMax and ReduceMin: equal elements share the gradient evenly", () => {
  assert.deepEqual(gradientAt("ReduceMax", [1, 3, 3, 2]), [0, 0.5, 0.5, 0]);
  assert.deepEqual(gradientAt("ReduceMin", [1, 3, 1, 1]), [1 / 3, 0, 1 / 3, 1 / 3]);
});

test("ReduceL1 and ReduceL2: no gradient at the kink, and never NaN", () => {
  assert.deepEqual(gradientAt("ReduceL1", [0, -2, 3]), [0, -1, 1]);
  assert.deepEqual(gradientAt("ReduceL2", [0, 0, 0]), [0, 0, 0]);
});

test("ReduceLogSumExp: no overflow, and gradients that sum to one", () => {
  for (const share of gradientAt("ReduceLogSumExp", [1000, 1000])) {
    assert.ok(Math.abs(share - 0.5) < 1e-12);
  }
});

test("ArgMax and ArgMin: indices, the last of several on request, no gradient", () => {
  const place = (op: string, attributes: Record<string, number>) => {
    const b = newBuilder("arg");
    const tensor = tensorFrom("float32", [2, 3], [1, 5, 5, 0, -1, -1]);
    const graph = b.build([b.one(op, [b.input("x", tensor)], attributes)]);
    return toNumbers(Object.values(interpret(graph, { x: tensor }))[0] as Tensor);
  };
  assert.deepEqual(place("ArgMax", { axis: 1, keepdims: 0 }), [1, 0]);
  assert.deepEqual(place("ArgMax", { axis: -1, select_last_index: 1 }), [2, 0]);
  assert.deepEqual(place("ArgMin", { axis: 0 }), [1, 1, 1]);
  assert.deepEqual(place("ArgMin", { axis: 1, select_last_index: 1 }), [0, 2]);
});

test("axes out of range are refused", () => {
  const x = newBuilder("bad").input("x", { dtype: "float32", shape: [2] });
  assert.throws(() => reduceSum(x, { axes: [1] }), /axes \[1\] are out of range/);
  assert.throws(() => x.builder.one("ArgMax", [x], { axis: 2 }), /axis 2 is out of range/);
});
