/** Which work is said to be done by every rank of a divided model. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { engine, stepOf } from "../../test/support/pass-check.ts";
import { createMesh } from "../mesh/index.ts";
import { gpt } from "../nn/index.ts";
import { applyStrategies, tensor, wholeWork } from "./index.ts";

after(() => engine.close());

function workOf(heads: number, ranks: number) {
  const shape = { layers: 2, width: 96, heads, context: 64, vocabulary: 512 };
  const alone = stepOf(gpt(shape), 1);
  const mesh = createMesh({ tensor: ranks });
  return wholeWork(alone, applyStrategies([tensor()], alone, mesh), mesh);
}

test("ranks share all products of a model whose heads divide evenly", () => {
  const { share, layers } = workOf(4, 2);
  assert.ok(share < 0.02, JSON.stringify([...layers]));
});

test("attention whose heads do not divide evenly is named", () => {
  const { share, layers, ranks } = workOf(6, 4);
  const [first] = layers.keys();
  assert.deepEqual([ranks, first], [4, "blocks.*.attention"]);
  assert.ok(share > 0.02 && share < 0.5, `${share}`);
});
