import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { randomNumbers, randomSource } from "../../../test/support/random.ts";
import {
  cumSum,
  gather,
  gatherElements,
  gatherND,
  oneHot,
  type Reduction,
  reduceSum,
  scatterElements,
  scatterND,
  topK,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { interpret } from "../../reference/index.ts";
import {
  type DType,
  elementCount,
  type Shape,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

const size = fc.integer({ min: 1, max: 4 });
const seed = fc.integer({ min: 1, max: 1e6 });
const runs = { numRuns: 25, seed: 1, includeErrorInReport: true };

/** Returns indices into a dim of `places` elements, some counted from the end. */
function indices(shape: Shape, places: number, from: number, dtype: DType = "int64"): Tensor {
  const next = randomSource(from);
  const draw = () => Math.floor(next() * 2 * places) - places;
  return tensorFrom(dtype, shape, Array.from({ length: elementCount(shape) }, draw));
}

/**
 * Returns indices along `axis` that do not repeat: each line is a part of a shuffled 0 … places -
 * 1.
 */
function distinctIndices(shape: Shape, axis: number, places: number, from: number): Tensor {
  const next = randomSource(from);
  const stride = elementCount(shape.slice(axis + 1));
  const count = shape[axis] as number;
  const data = new Array<number>(elementCount(shape));
  for (let line = 0; line < data.length / count; line++) {
    const order = Array.from({ length: places }, (_, place) => ({ place, key: next() }));
    order.sort((a, b) => a.key - b.key);
    const start = Math.floor(line / stride) * stride * count + (line % stride);
    for (let i = 0; i < count; i++) data[start + i * stride] = order[i]?.place as number;
  }
  return tensorFrom("int64", shape, data);
}

test("Gather: gradients on every axis, with repeated indices, in small and large tables", () => {
  fc.assert(
    fc.property(size, size, size, seed, fc.nat(2), (a, b, count, from, axis) => {
      for (const places of [a + 1, 300]) {
        const shape = [a, b, 2].with(axis, places);
        checkGradient({
          inputs: { x: shape, ids: indices([count, 3], places, from, "int32") },
          build: ({ x, ids }) => gather(x as Value, ids as Value, axis - 3),
        });
      }
    }),
    { ...runs, numRuns: 15 },
  );
});

test("Gather: second gradients by product and by scatter", () => {
  for (const places of [5, 300]) {
    checkGradient({
      inputs: { x: [places, 3], ids: indices([7], places, 3) },
      build: ({ x, ids }) => {
        const rows = gather(x as Value, ids as Value);
        return reduceSum(rows.builder.one("Mul", [rows, rows]));
      },
      second: true,
    });
  }
});

test("Gather: the gradient of one constant index is padding", () => {
  for (const number of [1, -1]) {
    checkGradient({
      inputs: { x: [2, 4, 3] },
      build: ({ x }, b) => gather(x as Value, b.scalar("int64", number), 1),
    });
  }
});

test("GatherElements and ScatterElements (none, add): gradients, first and second", () => {
  fc.assert(
    fc.property(size, size, size, seed, fc.nat(1), (rows, columns, taken, from, axis) => {
      const shape = [rows, columns].with(axis, taken + 1);
      const part = [rows, columns].with(axis, taken);
      const ids = indices(part, taken + 1, from);
      checkGradient({
        inputs: { x: shape, ids },
        build: (v) => gatherElements(v["x"] as Value, v["ids"] as Value, axis),
        second: true,
      });
      for (const reduction of ["none", "add"] as const) {
        const own = reduction === "none" ? distinctIndices(part, axis, taken + 1, from) : ids;
        checkGradient({
          inputs: { x: shape, ids: own, u: part },
          build: ({ x, ids: at, u }) =>
            scatterElements(x as Value, at as Value, u as Value, axis, reduction),
          second: true,
        });
      }
    }),
    runs,
  );
});

test("GatherND and ScatterND (none, add): gradients, with shared dims", () => {
  fc.assert(
    fc.property(
      size,
      size,
      seed,
      fc.nat(1),
      fc.integer({ min: 1, max: 2 }),
      (n, m, from, batch, depth) => {
        const places = 3;
        const ids = indices([...(batch ? [n] : []), m, depth], places, from);
        checkGradient({
          inputs: { x: [...(batch ? [n] : []), places, places, 2], ids },
          build: (v) => gatherND(v["x"] as Value, v["ids"] as Value, batch),
        });
        const rows = distinctIndices([2], 0, places, from);
        const tuples = { ...rows, shape: [2, 1] };
        for (const [reduction, at] of [
          ["none", tuples],
          ["add", indices([2, 1], places, from)],
        ] as const) {
          checkGradient({
            inputs: { x: [places, n], at, u: [2, n] },
            build: (v, b) => b.one("ScatterND", [v["x"], v["at"], v["u"]], { reduction }),
            second: true,
          });
        }
      },
    ),
    runs,
  );
});

test("ScatterElements and ScatterND (max, min, mul): gradients", () => {
  const x = tensorFrom("float64", [3, 2], [0.1, 1.2, -0.3, 2.4, 0.5, -0.6]);
  const u = tensorFrom("float64", [3, 2], [0.7, -1.8, 0.95, 2.05, -1.1, 0.25]);
  const ids = tensorFrom("int64", [3, 2], [0, 1, 2, 1, 0, -1]);
  const rows = tensorFrom("int64", [3, 1], [2, 0, -1]);
  for (const reduction of ["max", "min", "mul"] as Reduction[]) {
    checkGradient({
      inputs: { x, u, ids },
      build: (v) =>
        scatterElements(v["x"] as Value, v["ids"] as Value, v["u"] as Value, 0, reduction),
    });
    checkGradient({
      inputs: { x, u, rows },
      build: (v, b) => b.one("ScatterND", [v["x"], v["rows"], v["u"]], { reduction }),
    });
  }
});

test("ScatterElements, mul: products with no, one and two zeros", () => {
  const x = tensorFrom("float64", [4], [2, 0, 3, 0]);
  const u = tensorFrom("float64", [4], [0, 0.5, -1, 0]);
  const ids = tensorFrom("int64", [4], [0, 1, 2, 3]);
  checkGradient({
    inputs: { x, u, ids },
    build: (v) => scatterElements(v["x"] as Value, v["ids"] as Value, v["u"] as Value, 0, "mul"),
  });
});

test("scatterND with a reduction is the operator, made of ScatterElements", () => {
  const x = tensorFrom("float64", [3, 3, 2], randomNumbers(1, 18));
  const u = tensorFrom("float64", [4, 2], randomNumbers(2, 8));
  const at = tensorFrom("int64", [4, 2], [0, 1, 2, -1, 0, 1, 2, 2]);
  for (const reduction of ["add", "mul", "max", "min"] as const) {
    const b = newBuilder("scatter");
    const inputs = [b.input("x", x), b.input("at", at), b.input("u", u)] as const;
    const graph = b.build([
      scatterND(...inputs, reduction),
      b.one("ScatterND", inputs, { reduction }),
    ]);
    assert.ok(graph.nodes.some((node) => node.op === "ScatterElements"));
    const [ours, theirs] = Object.values(interpret(graph, { x, at, u })).map(toNumbers);
    assert.deepEqual(ours, theirs);
  }
});

test("CumSum: gradients, exclusive and reverse", () => {
  fc.assert(
    fc.property(
      size,
      size,
      fc.boolean(),
      fc.boolean(),
      fc.nat(1),
      (a, b, exclusive, reverse, axis) =>
        checkGradient({
          inputs: { x: [a, b + 1] },
          build: ({ x }) => cumSum(x as Value, axis, { exclusive, reverse }),
          second: true,
        }),
    ),
    runs,
  );
});

test("TopK: the gradient goes to the chosen elements", () => {
  const x = tensorFrom("float64", [2, 4], [0.3, 1.2, -0.5, 0.9, 2, -1, 0.1, 1]);
  checkGradient({ inputs: { x }, build: (v) => topK(v["x"] as Value, 3).values, second: true });
  checkGradient({
    inputs: { x },
    build: (v, b) => b.emit("TopK", [v["x"], b.ints([1])], { axis: 0, largest: 0 })[0] as Value,
  });
});

test("OneHot and ReverseSequence: gradients", () => {
  checkGradient({
    inputs: { values: [2], ids: indices([2, 3], 4, 5) },
    build: ({ values, ids }, b) =>
      b.one("OneHot", [ids, b.scalar("int64", 4), values], { axis: 1 }),
  });
  checkGradient({
    inputs: { x: [4, 3, 2], lengths: tensorFrom("int64", [3], [1, 4, 2]) },
    build: ({ x, lengths }, b) => b.one("ReverseSequence", [x, lengths]),
  });
});

test("oneHot gives a vector for each index", () => {
  const b = newBuilder("hot");
  const ids = tensorFrom("int32", [2, 2], [0, 2, 1, 1]);
  const graph = b.build([oneHot(b.input("ids", ids), 3, "float32")]);
  const hot = Object.values(interpret(graph, { ids }))[0] as Tensor;
  assert.deepEqual(hot.shape, [2, 2, 3]);
  assert.deepEqual(toNumbers(hot), [1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0]);
});

test("wrong indices and axes are refused, and the error says what is wrong", () => {
  const b = newBuilder("bad");
  const x = b.input("x", { dtype: "float32", shape: [3, 2] });
  assert.throws(() => gather(x, x), /indices are int32 or int64/);
  assert.throws(() => gather(x, b.ints([0]), 2), /axis 2 is out of range/);
  assert.throws(() => topK(x, 3), /no 3 elements/);
  assert.throws(() => scatterND(x, b.ints([0]), b.ints([1])), /element type/);
});
