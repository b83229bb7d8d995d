/**
 * Every gradient rule of this family is compared with finite differences, over shapes drawn at
 * random.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import type { AttributeInputs } from "../../graph/index.ts";
import { scalar, tensorFrom } from "../../tensor/index.ts";
import { elementwise } from "./index.ts";

interface UnaryCase {
  readonly range?: readonly [number, number];
  readonly attributes?: AttributeInputs;
  /**
   * Whether the second derivative is checked. Rules made of `where` have second derivatives of
   * zero, or ones that differ at kinks.
   */
  readonly second?: boolean;
}

/** Ranges that avoid kinks and poles. Two-sided functions get a range on each side. */
const UNARY: Readonly<Record<string, readonly UnaryCase[]>> = {
  Abs: [{ range: [0.1, 1] }, { range: [-1, -0.1] }],
  Acos: [{ range: [-0.8, 0.8] }],
  Acosh: [{ range: [1.5, 3] }],
  Asin: [{ range: [-0.8, 0.8] }],
  Asinh: [{}],
  Atan: [{}],
  Atanh: [{ range: [-0.8, 0.8] }],
  Celu: [{ range: [-3, 3], attributes: { alpha: 0.7 }, second: false }],
  Cos: [{}],
  Cosh: [{}],
  Elu: [
    { range: [-3, 3], attributes: { alpha: 0.7 }, second: false },
    { range: [-3, -0.1] },
    { range: [0.1, 3] },
  ],
  Erf: [{ range: [-2, 2] }],
  Exp: [{}],
  Gelu: [{ range: [-3, 3] }, { range: [-3, 3], attributes: { approximate: "tanh" } }],
  HardSigmoid: [{ range: [-2, 2] }, { range: [4, 6] }],
  HardSwish: [{ range: [-2.9, 2.9] }, { range: [3.1, 5] }, { range: [-5, -3.1] }],
  LeakyRelu: [
    { range: [0.1, 1] },
    { range: [-1, -0.1], attributes: { alpha: 0.2 } },
    { range: [-1, -0.1], attributes: { alpha: 2 } },
  ],
  Log: [{ range: [0.5, 2] }],
  Mish: [{ range: [-3, 3] }],
  Neg: [{}],
  Reciprocal: [{ range: [0.5, 2] }, { range: [-2, -0.5] }],
  Relu: [{ range: [0.1, 1] }, { range: [-1, -0.1] }],
  Selu: [{ range: [0.1, 3] }, { range: [-3, -0.1] }],
  Shrink: [{ range: [0.6, 2], attributes: { bias: 0.3 } }, { range: [-0.4, 0.4] }],
  Sigmoid: [{ range: [-4, 4] }],
  Sin: [{}],
  Sinh: [{}],
  Softplus: [{ range: [-4, 4] }],
  Softsign: [{ range: [0.1, 3] }, { range: [-3, -0.1] }],
  Sqrt: [{ range: [0.5, 2] }],
  Tan: [{}],
  Tanh: [{ range: [-2, 2] }],
  ThresholdedRelu: [{ range: [1.1, 2] }, { range: [-1, 0.9] }],
  "com.microsoft::FastGelu": [{ range: [-3, 3] }],
  "com.microsoft::Gelu": [{ range: [-3, 3] }],
  "com.microsoft::QuickGelu": [{ range: [-3, 3] }, { range: [-3, 3], attributes: { alpha: 1 } }],
};

const shape = fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 3 });

for (const [op, cases] of Object.entries(UNARY)) {
  test(`${op}: gradient`, () => {
    for (const { range, attributes = {}, second = true } of cases) {
      fc.assert(
        fc.property(shape, fc.integer({ min: 1, max: 1e6 }), (drawn, seed) => {
          checkGradient({
            inputs: { x: drawn },
            build: ({ x }, builder) => builder.one(op, [x], attributes),
            ...(range && { range }),
            seed,
            second,
            tolerance: 1e-5,
          });
        }),
        { numRuns: 8, seed: 1, includeErrorInReport: true },
      );
    }
  });
}

/** Two shapes that broadcast with each other. */
const broadcastPair = fc
  .tuple(shape, fc.array(fc.constantFrom("both", "left", "right"), { maxLength: 3 }))
  .map(([full, ones]): [number[], number[]] => {
    const drop = (side: string) => full.map((size, dim) => (ones[dim] === side ? 1 : size));
    return [drop("left"), ones.length === 1 ? drop("right").slice(1) : drop("right")];
  });

const BINARY: Readonly<Record<string, UnaryCase>> = {
  Add: {},
  Sub: {},
  Mul: {},
  Div: { range: [0.5, 2] },
  Pow: { range: [0.5, 2] },
  Max: {},
  Min: {},
  Sum: {},
  Mean: {},
};

for (const [op, { range }] of Object.entries(BINARY)) {
  test(`${op}: gradient with broadcasting`, () => {
    fc.assert(
      fc.property(broadcastPair, fc.integer({ min: 1, max: 1e6 }), ([a, b], seed) => {
        checkGradient({
          inputs: { a, b },
          build: (values, builder) => builder.one(op, [values.a, values.b]),
          ...(range && { range }),
          seed,
          second: true,
          tolerance: 1e-5,
        });
      }),
      { numRuns: 12, seed: 1, includeErrorInReport: true },
    );
  });
}

for (const op of ["Max", "Min", "Sum", "Mean"]) {
  test(`${op}: gradient of one and of four inputs`, () => {
    for (const count of [1, 4]) {
      const names = ["a", "b", "c", "d"].slice(0, count);
      checkGradient({
        inputs: Object.fromEntries(names.map((name, i) => [name, i === 1 ? [3] : [2, 3]])),
        build: (values, builder) =>
          builder.one(
            op,
            names.map((name) => values[name]),
          ),
        second: true,
      });
    }
  });
}

test("Mul: a square, and a product that is used twice", () => {
  checkGradient({
    inputs: { x: [2, 3] },
    build: ({ x }, builder) => builder.one("Mul", [x, x]),
    second: true,
  });
  checkGradient({
    inputs: { x: [2, 3], y: [3] },
    build: ({ x, y }, builder) => {
      const product = builder.one("Mul", [x, y]);
      return builder.one("Mul", [product, product]);
    },
    second: true,
  });
});

test("Pow: constant exponents, first and second order", () => {
  for (const exponent of [0, 1, 2, 3, 4, 0.5, -0.5, -1, -2, 1.7]) {
    checkGradient({
      inputs: { x: [2, 3] },
      build: ({ x }, builder) => builder.one("Pow", [x, builder.scalar("float64", exponent)]),
      range: [0.5, 2],
      second: true,
      tolerance: 1e-5,
    });
  }
  for (const exponent of [2, 3, 4]) {
    checkGradient({
      inputs: { x: [2, 3] },
      build: ({ x }, builder) => builder.one("Pow", [x, builder.scalar("int64", exponent)]),
      second: true,
      tolerance: 1e-5,
    });
  }
});

test("PRelu, Clip, Where, Mod, BiasGelu, Cast and Dropout: gradient", () => {
  const mixed = tensorFrom("float64", [2, 3], [0.5, -0.5, 1.5, -1.5, 0.2, -0.3]);
  checkGradient({
    inputs: { x: mixed, slope: [3] },
    build: ({ x, slope }, builder) => builder.one("PRelu", [x, slope]),
    second: true,
  });
  const low = scalar("float64", -0.4);
  checkGradient({
    inputs: { x: mixed, low, high: scalar("float64", 1) },
    build: ({ x, low, high }, builder) => builder.one("Clip", [x, low, high]),
  });
  checkGradient({
    inputs: { x: mixed },
    build: ({ x }, builder) => builder.one("Clip", [x, undefined, builder.constant(low)]),
  });
  checkGradient({
    inputs: { a: [2, 3], b: [3], condition: tensorFrom("bool", [2, 1], [1, 0]) },
    build: ({ a, b, condition }, builder) => builder.one("Where", [condition, a, b]),
    second: true,
  });
  for (const fmod of [0, 1]) {
    checkGradient({
      inputs: { a: mixed, b: tensorFrom("float64", [3], [0.4, 0.35, -0.7]) },
      build: ({ a, b }, builder) => builder.one("Mod", [a, b], { fmod }),
    });
  }
  checkGradient({
    inputs: { a: [2, 3], bias: [3] },
    build: ({ a, bias }, builder) => builder.one("com.microsoft::BiasGelu", [a, bias]),
    range: [-2, 2],
    second: true,
  });
  checkGradient({
    inputs: { x: [2, 3], bias: [3] },
    build: ({ x, bias }, builder) => builder.one("com.microsoft::FastGelu", [x, bias]),
    range: [-2, 2],
  });
  checkGradient({
    inputs: { x: [2, 3] },
    build: ({ x }, builder) => builder.one("Dropout", [builder.one("Cast", [x], { to: 11 })]),
  });
});

test("every operator of the family has a gradient check, or is known to have a zero one", () => {
  const others = "PRelu Clip Where Mod Cast CastLike Dropout com.microsoft::BiasGelu".split(" ");
  const checked = new Set([...Object.keys(UNARY), ...Object.keys(BINARY), ...others]);
  const unchecked = Object.values(elementwise)
    .filter(({ name, gradient }) => !("zero" in gradient) && !checked.has(name))
    .map(({ name }) => name);
  assert.deepEqual(unchecked, []);
});

test("every operator is in the table under its own name", () => {
  for (const [key, { name }] of Object.entries(elementwise)) assert.equal(name, key);
});
