import assert from "node:assert/strict";
import { test } from "node:test";
import { checkDivisions } from "../../../test/support/division-check.ts";
import { drawn } from "../../../test/support/random.ts";

test("a product is divided by rows, columns, matrices, or into terms of a sum", () => {
  const checked = checkDivisions({ op: "MatMul", inputs: [drawn([6, 12]), drawn([12, 18])] });
  assert.deepEqual(checked.slice(0, 6), [
    "MatMul on 2 ranks: whole, whole -> whole",
    "MatMul on 2 ranks: 0, whole -> 0",
    "MatMul on 2 ranks: whole, 1 -> 1",
    "MatMul on 2 ranks: 1, 0 -> partial",
    "MatMul on 2 ranks: partial, whole -> partial",
    "MatMul on 2 ranks: whole, partial -> partial",
  ]);
  checkDivisions({ op: "MatMul", inputs: [drawn([6, 1, 6, 12]), drawn([6, 12, 6])] });
  checkDivisions({ op: "MatMul", inputs: [drawn([12]), drawn([6, 12, 6])] });
  checkDivisions({ op: "MatMul", inputs: [drawn([6, 6, 12]), drawn([12])] });
});
