import assert from "node:assert/strict";
import { test } from "node:test";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { newBuilder } from "../index.ts";

const forms: [string, ...number[][]][] = [
  ["ij->ji", [2, 3]],
  ["ij->", [2, 3]],
  ["ijk->ik", [2, 3, 2]],
  ["...i->...", [2, 3, 4]],
  ["i,j->ij", [2], [3]],
  ["ij,jk", [2, 3], [3, 2]],
  ["bij,bkj->bik", [2, 3, 2], [2, 4, 2]],
  ["bthd,bshd->bhts", [2, 3, 2, 2], [2, 4, 2, 2]],
  ["...ij,...jk->...ik", [2, 1, 2, 3], [4, 3, 2]],
  ["ij,kl->i", [2, 3], [2, 2]],
  ["ij,jk,kl->il", [2, 3], [3, 2], [2, 4]],
];

for (const [equation, ...shapes] of forms) {
  test(`Einsum: gradient of ${equation}`, () => {
    checkGradient({
      inputs: Object.fromEntries(shapes.map((shape, i) => [`x${i}`, shape])),
      build: (values, builder) => builder.one("Einsum", Object.values(values), { equation }),
      second: true,
    });
  });
}

test("Einsum refuses diagonals, sizes that differ, and results that no input has", () => {
  const b = newBuilder("einsum");
  const x = b.input("x", { dtype: "float32", shape: [2, 3] });
  for (const equation of ["ii->i", "ij,ij->k", "ij,jk->ik", "ijk->i", "ij->ii"]) {
    const operands = equation.includes(",") ? [x, x] : [x];
    assert.throws(() => b.one("Einsum", operands, { equation }), { code: "SHAPE_MISMATCH" });
  }
});
