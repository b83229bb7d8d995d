/**
 * Integer arithmetic of ONNX Runtime equals the reference interpreter's: overflow wraps, division
 * rounds towards zero, shifts and bits agree. Random numbers are made of these operators, so the
 * results must be exact.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { createOrtEngine, type Device, evaluate } from "../src/engine/index.ts";
import type { AttributeInputs } from "../src/graph/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { interpret } from "../src/reference/index.ts";
import { DTYPES, type DType, type Tensor, tensorFrom, toNumbers } from "../src/tensor/index.ts";

const COUNT = 24;

interface IntegerCase {
  readonly types: readonly DType[];
  /**
   * The range of the second operand; "none" for an operator with one input. Default: that of the
   * first.
   */
  readonly second?: readonly [number, number] | "none";
  readonly attributes?: AttributeInputs;
}

const BOTH: readonly DType[] = ["int32", "uint32"];
const CASES: Readonly<Record<string, readonly IntegerCase[]>> = {
  Add: [{ types: BOTH }],
  Sub: [{ types: BOTH }],
  Mul: [{ types: BOTH }],
  Div: [{ types: BOTH, second: [1, 100_000] }],
  Mod: [
    { types: BOTH, second: [1, 100_000] },
    { types: BOTH, second: [1, 100_000], attributes: { fmod: 1 } },
  ],
  BitwiseAnd: [{ types: BOTH }],
  BitwiseOr: [{ types: BOTH }],
  BitwiseXor: [{ types: BOTH }],
  BitwiseNot: [{ types: BOTH, second: "none" }],
  BitShift: [
    { types: ["uint32"], second: [0, 31], attributes: { direction: "RIGHT" } },
    { types: ["uint32"], second: [0, 31], attributes: { direction: "LEFT" } },
  ],
  Less: [{ types: BOTH }],
  GreaterOrEqual: [{ types: BOTH }],
  Equal: [{ types: BOTH, second: [0, 1] }],
  Max: [{ types: BOTH }],
  Min: [{ types: BOTH }],
  Sign: [{ types: ["int32"], second: "none" }],
  Cast: (["int32", "int64", "float32", "float64", "bool"] as const).map((to) => ({
    types: BOTH,
    second: "none",
    attributes: { to: DTYPES[to].onnx },
  })),
};

function numbersOf(dtype: DType): fc.Arbitrary<number> {
  const [min, max] = dtype === "int32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  const edges = fc.constantFrom(min, max, 0, 1, 65_535, 65_536, max - 1);
  return fc.oneof(fc.integer({ min, max }), edges);
}

describe("integers", () => {
  let engine: Device;
  before(() => {
    engine = createOrtEngine({ threads: 1 });
  });
  after(() => engine.close());

  for (const [op, cases] of Object.entries(CASES)) {
    test(`${op} is the same in ONNX Runtime and in the reference`, async () => {
      for (const { types, second, attributes = {} } of cases) {
        for (const dtype of types) {
          await fc.assert(
            fc.asyncProperty(drawn(dtype, second), async (columns) => {
              const builder = newBuilder("integers");
              const feeds: Record<string, Tensor> = {};
              const inputs = columns.map((numbers, index) => {
                feeds[`i${index}`] = tensorFrom(dtype, [COUNT], numbers);
                return builder.input(`i${index}`, { dtype, shape: [COUNT] });
              });
              const graph = builder.build([builder.one(op, inputs, attributes)]);
              const name = graph.outputs[0] as string;
              const expected = toNumbers(interpret(graph, feeds)[name] as Tensor);
              const results = await evaluate(engine, graph, feeds);
              assert.deepEqual(toNumbers(results[name] as Tensor), expected);
            }),
            { numRuns: 10, seed: 1, includeErrorInReport: true },
          );
        }
      }
    });
  }
});

function drawn(dtype: DType, second: IntegerCase["second"]): fc.Arbitrary<number[][]> {
  const column = (numbers: fc.Arbitrary<number>) =>
    fc.array(numbers, { minLength: COUNT, maxLength: COUNT });
  const first = column(numbersOf(dtype));
  if (second === "none") return fc.tuple(first);
  const other =
    second === undefined ? numbersOf(dtype) : fc.integer({ min: second[0], max: second[1] });
  return fc.tuple(first, column(other));
}
