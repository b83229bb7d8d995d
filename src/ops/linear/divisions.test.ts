import assert from "node:assert/strict";
import { test } from "node:test";
import { checkDivisions, divisionTrials } from "../../../test/support/division-check.ts";
import { drawn } from "../../../test/support/random.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { linear } from "./index.ts";

const { onTwo, tried } = divisionTrials();

test("a product is divided by rows, columns, matrices, or into terms of a sum", () => {
  const checked = onTwo({ op: "MatMul", inputs: [drawn([6, 12]), drawn([12, 18])] });
  assert.deepEqual(checked, [
    "whole, whole -> whole",
    "0, whole -> 0",
    "whole, 1 -> 1",
    "1, 0 -> partial",
    "partial, whole -> partial",
    "whole, partial -> partial",
  ]);
  checkDivisions({ op: "MatMul", inputs: [drawn([6, 1, 6, 12]), drawn([6, 12, 6])] });
  checkDivisions({ op: "MatMul", inputs: [drawn([12]), drawn([6, 12, 6])] });
  checkDivisions({ op: "MatMul", inputs: [drawn([6, 6, 12]), drawn([12])] });
});

test("Einsum is divided by each label, of which those that are summed leave terms", () => {
  const einsum = (equation: string, ...shapes: number[][]) =>
    onTwo({
      op: "Einsum",
      attributes: { equation },
      inputs: shapes.map((shape, index) => drawn(shape, { seed: index + 1 })),
    });
  assert.deepEqual(einsum("bij,bjk->kbi", [6, 12, 5], [6, 5, 18]), [
    "whole, whole -> whole",
    "0, 0 -> 1",
    "1, whole -> 2",
    "whole, 2 -> 0",
    "partial, whole -> partial",
    "whole, partial -> partial",
  ]);
  assert.ok(einsum("ij,j", [7, 6], [6]).includes("1, 0 -> partial"));
  assert.ok(einsum("ij->", [6, 5]).includes("0 -> partial"));
  assert.ok(einsum("i,i,i->i", [6], [6], [6]).includes("0, 0, 0 -> 0"));
  assert.ok(einsum("ij,k->k", [6, 5], [7]).includes("0, whole -> partial"));
  const broadcast = einsum("...ij,...jk->...ik", [6, 1, 5, 7], [12, 7, 6]);
  assert.ok(broadcast.includes("0, whole -> 0"));
  assert.ok(broadcast.includes("whole, 0 -> 1"));
  assert.ok(einsum("...i,...i->i", [6, 5], [1, 5]).includes("0, whole -> partial"));
  const whole = tensorFrom("int32", [6], [1, 2, 3, 4, 5, 6]);
  const integers = onTwo({
    op: "Einsum",
    attributes: { equation: "i,i->i" },
    inputs: [whole, whole],
  });
  assert.deepEqual(integers, ["whole, whole -> whole", "0, 0 -> 0"]);
});

test("determinants, inverses and transforms are divided by matrices and by signals", () => {
  const matrices = drawn([6, 12, 3, 3]);
  const leading = ["whole -> whole", "0 -> 0", "1 -> 1"];
  assert.deepEqual(onTwo({ op: "Det", inputs: [matrices] }), leading);
  assert.deepEqual(onTwo({ op: "com.microsoft::Inverse", inputs: [matrices] }), leading);
  onTwo({ op: "Det", inputs: [drawn([5, 2, 2])] });
  const scalar = (number: number) => ({ constant: tensorFrom("int64", [], [number]) });
  for (const [inputs, attributes] of [
    [[drawn([6, 7, 12, 2]), null, scalar(1)], { inverse: 1 }],
    [[drawn([6, 7, 12, 1]), scalar(5), scalar(-3)], { onesided: 1 }],
    [[drawn([6, 7, 12, 2]), scalar(9), scalar(1)], {}],
  ] as const) {
    assert.deepEqual(onTwo({ op: "DFT", attributes, inputs }), [
      "whole, whole, whole -> whole",
      "0, whole, whole -> 0",
      "2, whole, whole -> 2",
      "partial, whole, whole -> partial",
    ]);
  }
});

test("every linear operator was divided", () => {
  // Those of products of two matrices are tried in the tests of what a transformer is made of.
  const elsewhere = ["Gemm", "com.microsoft::FusedMatMul"];
  const ops = Object.values(linear).map(({ name }) => name);
  assert.deepEqual([...tried, ...elsewhere].sort(), ops.sort());
});
