/** The types that operators of this family refuse, and the types of their results. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { DType, Shape } from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

type Given = readonly [DType, Shape];

function typeOf(op: string, inputs: readonly Given[], attributes = {}): readonly [DType, Shape] {
  const builder = newBuilder("types");
  const values = inputs.map(([dtype, shape], i) => builder.input(`i${i}`, { dtype, shape }));
  const { dtype, shape } = builder.one(op, values, attributes);
  return [dtype, shape];
}

const F: DType = "float32";

test("results: broadcast shapes, bools from comparisons, the base's type from Pow", () => {
  assert.deepEqual(
    typeOf("Add", [
      [F, [2, 1, 3]],
      [F, [4, 1]],
    ]),
    [F, [2, 4, 3]],
  );
  assert.deepEqual(
    typeOf("Less", [
      ["int32", [2]],
      ["int32", []],
    ]),
    ["bool", [2]],
  );
  assert.deepEqual(
    typeOf("Pow", [
      ["float64", [2]],
      ["int64", [3, 1]],
    ]),
    ["float64", [3, 2]],
  );
  assert.deepEqual(
    typeOf("Where", [
      ["bool", [2, 1]],
      [F, [3]],
      [F, []],
    ]),
    [F, [2, 3]],
  );
  assert.deepEqual(typeOf("Cast", [[F, [2]]], { to: 7 }), ["int64", [2]]);
  assert.deepEqual(
    typeOf("CastLike", [
      [F, [2]],
      ["float16", [5]],
    ]),
    ["float16", [2]],
  );
});

const REFUSED: readonly [string, string, readonly Given[], string, object?][] = [
  [
    "Add",
    "SHAPE_MISMATCH",
    [
      [F, [2]],
      [F, [3]],
    ],
    "do not broadcast",
  ],
  [
    "Add",
    "TYPE_MISMATCH",
    [
      [F, [2]],
      ["int32", [2]],
    ],
    "one element type",
  ],
  [
    "Mul",
    "TYPE_MISMATCH",
    [
      ["bool", [2]],
      ["bool", [2]],
    ],
    "takes numbers",
  ],
  ["Exp", "TYPE_MISMATCH", [["int32", [2]]], "takes floats"],
  ["Neg", "TYPE_MISMATCH", [["bool", [2]]], "takes numbers"],
  [
    "And",
    "TYPE_MISMATCH",
    [
      [F, [2]],
      [F, [2]],
    ],
    "takes bools",
  ],
  ["Not", "TYPE_MISMATCH", [[F, [2]]], "takes bools"],
  [
    "Less",
    "TYPE_MISMATCH",
    [
      ["bool", [2]],
      ["bool", [2]],
    ],
    "takes numbers",
  ],
  [
    "BitwiseXor",
    "TYPE_MISMATCH",
    [
      [F, [2]],
      [F, [2]],
    ],
    "takes integers",
  ],
  [
    "Where",
    "TYPE_MISMATCH",
    [
      [F, [2]],
      [F, [2]],
      [F, [2]],
    ],
    "must be bool",
  ],
  [
    "Clip",
    "SHAPE_MISMATCH",
    [
      [F, [2]],
      [F, [2]],
    ],
    "single numbers",
  ],
  [
    "PRelu",
    "SHAPE_MISMATCH",
    [
      [F, [2]],
      [F, [3, 2]],
    ],
    "broadcast to the shape of x",
  ],
  ["Cast", "TYPE_MISMATCH", [[F, [2]]], "element type 8", { to: 8 }],
];

for (const [op, code, inputs, words, attributes] of REFUSED) {
  const given = inputs.map(([dtype, shape]) => `${dtype}[${shape}]`).join(", ");
  test(`${op} refuses ${given}: ${words}`, () => {
    assert.throws(
      () => typeOf(op, inputs, attributes),
      (error: { code?: string; message?: string }) => {
        assert.equal(error.code, code);
        assert.ok(error.message?.includes(words), error.message);
        return true;
      },
    );
  });
}
