/** The divisions that a transformer is made of. Each family checks those of its other operators. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type DivisionCase, divisionTrials } from "../../test/support/division-check.ts";
import { drawn } from "../../test/support/random.ts";
import { LockstepError } from "../errors.ts";
import { tensorFrom } from "../tensor/index.ts";
import { collective } from "./collective/index.ts";
import { convolution } from "./convolution/index.ts";
import { elementwise } from "./elementwise/index.ts";
import { indexing } from "./indexing/index.ts";
import { layout } from "./layout/index.ts";
import { linear } from "./linear/index.ts";
import { normalization } from "./normalization/index.ts";
import { operators } from "./table.ts";

const { onTwo, tried } = divisionTrials();

const ints = (...numbers: number[]) => {
  return { constant: tensorFrom("int64", [numbers.length], numbers) };
};

test("Gemm is divided by rows, columns or terms, to which its bias is added once", () => {
  const found = onTwo({ op: "Gemm", inputs: [drawn([6, 12]), drawn([12, 18]), drawn([18])] });
  assert.deepEqual(found, [
    "whole, whole, whole -> whole",
    "0, whole, whole -> 0",
    "whole, 1, 0 -> 1",
    "1, 0, partial -> partial",
    "partial, whole, partial -> partial",
    "whole, partial, partial -> partial",
  ]);
  const [a, b] = [drawn([12, 6]), drawn([18, 12])];
  const attributes = { transA: 1, transB: 1, alpha: 0.5, beta: 2 };
  for (const bias of [drawn([6, 18]), drawn([6, 1]), drawn([1, 1]), drawn([])]) {
    onTwo({ op: "Gemm", attributes, inputs: [a, b, bias] });
  }
  onTwo({ op: "Gemm", attributes, inputs: [a, b] });
  onTwo({ op: "Gemm", inputs: [drawn([5, 7]), drawn([7, 6])] });
});

test("FusedMatMul is divided as it multiplies", () => {
  const op = "com.microsoft::FusedMatMul";
  const cases: [readonly number[], readonly number[], Record<string, number>][] = [
    [[6, 12, 6, 18], [6, 12, 6, 18], { transB: 1, alpha: 0.25 }],
    [[6, 12, 18, 6], [6, 12, 18, 6], { transA: 1 }],
    [[6, 12, 18], [18, 6], {}],
    [[6, 12, 18], [1, 18, 6], {}],
    [[6, 12, 18], [12, 18, 6], { transBatchA: 1 }],
    [[6, 5, 12, 18], [5, 12, 18, 6], { transBatchA: 1 }],
    [[12, 6, 18], [18, 12, 6], { transBatchB: 1 }],
  ];
  for (const [a, b, attributes] of cases) {
    const found = onTwo({ op, attributes, inputs: [drawn(a), drawn(b)] });
    assert.ok(found.length > 5, JSON.stringify(attributes));
  }
});

test("softmax is divided along its own dim, too", () => {
  for (const op of ["Softmax", "LogSoftmax"]) {
    const found = onTwo({ op, attributes: { axis: 1 }, inputs: [drawn([6, 12, 7])] });
    assert.deepEqual(found, ["whole -> whole", "0 -> 0", "1 -> 1"]);
    onTwo({ op, inputs: [drawn([6, 12], { range: [-80, 80] })] });
  }
});

test("layer normalization is divided along all dims, some of them with sums exchanged", () => {
  const inputs = [drawn([6, 12, 6]), drawn([6]), drawn([6])];
  const found = onTwo({ op: "LayerNormalization", inputs, outputs: 3 });
  assert.deepEqual(found, [
    "whole, whole, whole -> whole, whole, whole",
    "0, whole, whole -> 0, 0, 0",
    "1, whole, whole -> 1, 1, 1",
    "2, 0, 0 -> 2, whole, whole",
  ]);
  const flat = { op: "LayerNormalization", attributes: { axis: 1 } };
  onTwo({ ...flat, inputs: inputs.slice(0, 2) });
  onTwo({ ...flat, inputs: [drawn([6, 12, 6]), drawn([1, 6]), drawn([12, 1])], outputs: 3 });
  onTwo({ ...flat, inputs: [drawn([5, 7, 6]), drawn([])], outputs: 2 });
});

test("dims that are reshaped are cut where a rank has the same elements", () => {
  const reshaped = (from: readonly number[], to: number[], proportions: number[][] = []) =>
    onTwo({ op: "Reshape", inputs: [drawn(from), ints(...to)], proportions });
  assert.deepEqual(reshaped([4, 6, 5], [24, 5]).slice(1), [
    "0, whole -> 0",
    "1, whole -> 0(6+6+6+6)",
    "partial, whole -> partial",
  ]);
  assert.deepEqual(reshaped([24, 5], [4, 6, 5]).slice(1), [
    "0, whole -> 0",
    "0(6+6+6+6), whole -> 1",
    "partial, whole -> partial",
  ]);
  // Queries, keys and values of 6 heads of 2.
  assert.deepEqual(reshaped([5, 36], [5, 18, 2], [[1, 1, 1]]).slice(1), [
    "1, whole -> 1",
    "1(12+12+12), whole -> 1(6+6+6)",
    `1(${new Array(18).fill(2).join("+")}), whole -> 2`,
    "partial, whole -> partial",
  ]);
  reshaped([2, 3, 6, 4], [6, 24]);
  reshaped([6, 24], [2, 3, 6, 4]);
  reshaped([6, 1, 12], [1, 12, 6]);
  reshaped([7, 6], [6, 7]);
  reshaped([12], [2, 6], [[1, 2]]);
});

test("other operators that move elements", () => {
  const cases: DivisionCase[] = [
    { op: "Transpose", attributes: { perm: [2, 0, 1] }, inputs: [drawn([6, 12, 18])] },
    { op: "Transpose", inputs: [drawn([6, 12, 5])] },
    { op: "Squeeze", inputs: [drawn([6, 1, 12]), ints(1)] },
    { op: "Squeeze", inputs: [drawn([1, 6, 1, 12])] },
    { op: "Unsqueeze", inputs: [drawn([6, 12]), ints(0, 2)] },
    { op: "Flatten", attributes: { axis: 2 }, inputs: [drawn([2, 6, 12])] },
    { op: "Identity", inputs: [drawn([6, 12])] },
    { op: "Expand", inputs: [drawn([6, 1]), ints(6, 6, 12)] },
    { op: "Expand", inputs: [drawn([6, 12]), ints(1, 1)] },
    { op: "Expand", inputs: [drawn([]), ints(6)] },
    { op: "Split", attributes: { axis: 1 }, inputs: [drawn([6, 24]), ints(12, 6, 6)], outputs: 3 },
    { op: "Split", attributes: { axis: -1, num_outputs: 2 }, inputs: [drawn([6, 24])], outputs: 2 },
    { op: "Split", attributes: { axis: 0 }, inputs: [drawn([12, 5]), ints(5, 7)], outputs: 2 },
    { op: "Concat", attributes: { axis: 1 }, inputs: [drawn([6, 12]), drawn([6, 6])] },
    { op: "Concat", attributes: { axis: -1 }, inputs: [drawn([6, 12])] },
    { op: "Slice", inputs: [drawn([12, 24]), ints(6), ints(18), ints(1)] },
    { op: "Slice", inputs: [drawn([12, 24]), ints(-6), ints(1000), ints(-1), ints(1)] },
    { op: "Slice", inputs: [drawn([12, 24]), ints(-1), ints(-1000), ints(1), ints(-2)] },
    { op: "Slice", inputs: [drawn([12, 24]), ints(0, 1), ints(12, 7)] },
  ];
  for (const given of cases) {
    const found = onTwo({ ...given, proportions: [[2, 1, 1]] });
    assert.ok(found.length > 1, `${given.op}: ${found.join("; ")}`);
  }
  const split = cases.find(({ outputs }) => outputs === 3) as DivisionCase;
  assert.ok(onTwo(split).includes("1(12+6+6), whole -> 1, 1, 1"));
  const concat = cases.find(({ op }) => op === "Concat") as DivisionCase;
  assert.ok(onTwo(concat).includes("1, 1 -> 1(12+6)"));
  const slice = cases.find(({ op }) => op === "Slice") as DivisionCase;
  assert.ok(onTwo(slice).includes("1(6+12+6), whole, whole, whole -> 1"));
});

test("rows of a table that is cut are terms, of which all but one are zeros", () => {
  const ids = tensorFrom(
    "int64",
    [6, 3],
    Array.from({ length: 18 }, (_, at) => (at * 5) % 12),
  );
  const found = onTwo({ op: "Gather", inputs: [drawn([12, 6]), ids] });
  assert.deepEqual(found, [
    "whole, whole -> whole",
    "whole, 0 -> 0",
    "1, whole -> 2",
    "0, whole -> partial",
    "partial, whole -> partial",
  ]);
  const negative = tensorFrom("int32", [6], [-1, -12, 0, 11, -6, 5]);
  onTwo({ op: "Gather", attributes: { axis: -2 }, inputs: [drawn([6, 12, 5]), negative] });
  onTwo({ op: "Gather", inputs: [drawn([12]), tensorFrom("int64", [], [7])] });
  onTwo({ op: "Gather", inputs: [drawn([7, 5]), tensorFrom("int64", [5], [6, 0, 3, 3, 1])] });
});

test("elements are picked and written along a dim that is cut", () => {
  const at = (shape: readonly number[], most: number) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const numbers = Array.from({ length: count }, (_, index) => (index * 7) % most);
    return tensorFrom("int64", shape, numbers);
  };
  const picked = onTwo({
    op: "GatherElements",
    attributes: { axis: 1 },
    inputs: [drawn([6, 12]), at([6, 6], 12)],
  });
  assert.deepEqual(picked, [
    "whole, whole -> whole",
    "0, 0 -> 0",
    "whole, 1 -> 1",
    "1, whole -> partial",
    "partial, whole -> partial",
  ]);
  onTwo({ op: "GatherElements", inputs: [drawn([12, 6]), at([1, 6], 12)] });
  for (const reduction of ["add", "none", "mul", "max", "min"]) {
    const indices = reduction === "none" ? at([6, 1], 12) : at([6, 6], 12);
    const updates = drawn(indices.shape, { seed: 5 });
    const attributes = { axis: 1, reduction };
    const inputs = [drawn([6, 12]), indices, updates];
    const found = onTwo({ op: "ScatterElements", attributes, inputs });
    assert.ok(found.includes("1, whole, whole -> 1"), reduction);
    assert.ok(found.includes("0, 0, 0 -> 0"), reduction);
  }
  const flat = [drawn([12]), at([6], 12), drawn([6], { seed: 3 })];
  const added = onTwo({ op: "ScatterElements", attributes: { reduction: "add" }, inputs: flat });
  assert.ok(added.includes("partial, 0, 0 -> partial"));
});

test("padding, choices, casts, and means", () => {
  const cases: DivisionCase[] = [
    { op: "Pad", inputs: [drawn([6, 12]), ints(0, 6, 0, 12)] },
    { op: "Pad", inputs: [drawn([6, 12]), ints(6, 0), null, ints(-1)] },
    { op: "Pad", inputs: [drawn([6, 12]), ints(0, -6, 0, 0)] },
    { op: "Pad", attributes: { mode: "reflect" }, inputs: [drawn([6, 12]), ints(0, 3, 0, 3)] },
    {
      op: "Pad",
      inputs: [drawn([6, 12]), ints(0, 6, 0, 6), { constant: tensorFrom("float64", [], [2]) }],
    },
    {
      op: "Where",
      inputs: [tensorFrom("bool", [6, 1], [1, 0, 1, 1, 0, 0]), drawn([6, 12]), drawn([12])],
    },
    { op: "Cast", attributes: { to: 1 }, inputs: [drawn([6, 12])], tolerance: 1e-6 },
    { op: "Cast", attributes: { to: 7 }, inputs: [drawn([6, 12], { range: [-9, 9] })] },
    { op: "Clip", inputs: [drawn([6, 12]), tensorFrom("float64", [], [-0.5])] },
    { op: "ReduceMean", inputs: [drawn([6, 12, 5]), ints(1)] },
    { op: "ReduceMean", attributes: { keepdims: 0 }, inputs: [drawn([6, 12])] },
    { op: "ReduceMax", attributes: { keepdims: 0 }, inputs: [drawn([6, 12, 6]), ints(-1)] },
    { op: "ReduceSum", inputs: [drawn([6, 12, 6]), ints(0, 2)] },
    { op: "ReduceProd", inputs: [drawn([6, 12]), ints(1)] },
  ];
  for (const given of cases) {
    const found = onTwo(given);
    assert.ok(found.length > 1, `${given.op}: ${found.join("; ")}`);
  }
  assert.ok(onTwo(cases[0] as DivisionCase).includes("1, whole -> 1(6+12+12)"));
  assert.ok(!onTwo(cases[4] as DivisionCase).includes("partial, whole, whole -> partial"));
  assert.ok(onTwo(cases[9] as DivisionCase).includes("1, whole -> partial"));
  assert.ok(!onTwo(cases[7] as DivisionCase).includes("partial -> partial"));
});

const bools = (shape: readonly number[]) => {
  const count = shape.reduce((product, size) => product * size, 1);
  return tensorFrom(
    "bool",
    shape,
    Array.from({ length: count }, (_, at) => Number(at % 3 === 0)),
  );
};
const scalarOf = (dtype: "int64" | "float64", number: number) => {
  return { constant: tensorFrom(dtype, [], [number]) };
};
const image = drawn([6, 12, 6, 6]);

/** A case for each operator whose family has no such test of its own. */
const CASES: readonly DivisionCase[] = [
  { op: "Not", inputs: [bools([6, 12])] },
  { op: "BitwiseNot", inputs: [tensorFrom("int64", [6], [1, 0, -2, 7, 5, 3])] },
  { op: "IsNaN", inputs: [drawn([6, 12])] },
  { op: "IsInf", inputs: [drawn([6, 12])] },
  { op: "PRelu", inputs: [drawn([6, 12]), drawn([12], { seed: 2 })] },
  { op: "Pow", inputs: [drawn([6, 12], { range: [0.5, 2] }), scalarOf("float64", 1.5)] },
  { op: "com.microsoft::BiasGelu", inputs: [drawn([6, 12]), drawn([12], { seed: 2 })] },
  { op: "com.microsoft::FastGelu", inputs: [drawn([6, 12]), drawn([12], { seed: 2 })] },
  { op: "com.microsoft::FastGelu", inputs: [drawn([6, 12])] },
  { op: "CastLike", inputs: [drawn([6, 12]), drawn([1])] },
  { op: "ArgMax", attributes: { axis: 1, keepdims: 0 }, inputs: [drawn([6, 5, 12])] },
  { op: "ArgMin", attributes: { axis: -1 }, inputs: [drawn([6, 12])] },
  {
    op: "ReduceMean",
    inputs: [tensorFrom("int64", [6, 2], [1, 4, 0, 3, -2, 9, 7, 5, 3, 2, 1, 1]), ints(0)],
  },
  { op: "Dropout", inputs: [drawn([6, 12])], outputs: 2 },
  { op: "ReduceMin", inputs: [drawn([6, 12]), ints(1)] },
  { op: "ReduceL1", inputs: [drawn([6, 12]), ints(1)] },
  { op: "ReduceL2", inputs: [drawn([6, 12]), ints(1)] },
  { op: "ReduceLogSum", inputs: [drawn([6, 12], { range: [1, 2] }), ints(1)] },
  { op: "ReduceLogSumExp", inputs: [drawn([6, 12]), ints(1)] },
  { op: "ReduceSumSquare", inputs: [drawn([6, 12]), ints(1)] },
  { op: "Col2Im", inputs: [drawn([6, 12, 4]), ints(3, 3), ints(2, 2)] },
  { op: "GridSample", inputs: [image, drawn([6, 6, 12, 2])] },
  {
    op: "DeformConv",
    attributes: { kernel_shape: [2, 2] },
    inputs: [
      image,
      drawn([6, 12, 2, 2]),
      drawn([6, 8, 5, 5]),
      null,
      drawn([6, 4, 5, 5], { seed: 9 }),
    ],
  },
  {
    op: "RNN",
    inputs: [drawn([5, 6, 3]), drawn([1, 4, 3]), drawn([1, 4, 4])],
    outputs: 2,
  },
  {
    op: "GRU",
    inputs: [
      drawn([5, 6, 3]),
      drawn([1, 12, 3]),
      drawn([1, 12, 4]),
      null,
      tensorFrom("int32", [6], [5, 3, 1, 2, 4, 5]),
    ],
    outputs: 2,
  },
  {
    op: "LSTM",
    attributes: { direction: "bidirectional" },
    inputs: [
      drawn([5, 6, 3]),
      drawn([2, 16, 3]),
      drawn([2, 16, 4]),
      null,
      null,
      drawn([2, 6, 4]),
      drawn([2, 6, 4], { seed: 4 }),
    ],
    outputs: 3,
  },
];

test("each other operator is divided rightly, and in sizes that do not divide not at all", () => {
  for (const given of CASES) {
    const found = onTwo({ ...given, proportions: [[1, 1]] });
    assert.ok(found.length > 1, `${given.op}: ${found.join("; ")}`);
  }
});

test("element-wise operators are divided as their inputs are, which may be broadcast", () => {
  const shapes = [[6, 12], [12], [6, 1]];
  const kinds = [
    (shape: readonly number[], seed: number, range: readonly [number, number]) =>
      drawn(shape, { seed, range }),
    (shape: readonly number[], seed: number) => {
      const count = shape.reduce((product, size) => product * size, 1);
      const numbers = Array.from({ length: count }, (_, at) => ((at + seed) * 5) % 7);
      return tensorFrom("uint8", shape, numbers);
    },
    bools,
  ];
  for (const [op, { inputs: counts }] of Object.entries(elementwise)) {
    if (tried.has(op)) continue;
    const range: readonly [number, number] = op === "Acosh" ? [1.1, 1.9] : [0.1, 0.9];
    const attempts = kinds.map((make) => () => {
      const inputs = shapes.slice(0, counts[0]).map((shape, at) => make(shape, at + 1, range));
      const attributes = op === "BitShift" ? { direction: "LEFT" } : {};
      return onTwo({ op, inputs, attributes });
    });
    const found = firstOfType(attempts);
    assert.ok(found.length > 1, `${op}: ${found.join("; ")}`);
  }
});

/** The result of the first attempt whose types the operator takes. */
function firstOfType<Result>(attempts: readonly (() => Result)[]): Result {
  const [attempt, ...others] = attempts;
  assert.ok(attempt !== undefined, "an operator takes one of the types");
  try {
    return attempt();
  } catch (error) {
    if (error instanceof LockstepError && error.code === "TYPE_MISMATCH") {
      return firstOfType(others);
    }
    throw error;
  }
}

/** These have tests beside them. */
const OTHERS = new Set(
  [layout, indexing, linear, normalization, convolution, collective].flatMap((family) =>
    Object.keys(family),
  ),
);

test("every operator that can be divided was", () => {
  const missing = Object.entries(operators).filter(
    ([name, { divisions }]) =>
      typeof divisions === "function" && !tried.has(name) && !OTHERS.has(name),
  );
  assert.deepEqual(
    missing.map(([name]) => name),
    [],
  );
  for (const [name, { divisions }] of Object.entries(operators)) {
    if (typeof divisions === "object") assert.ok(divisions.never.length > 10, name);
  }
});
