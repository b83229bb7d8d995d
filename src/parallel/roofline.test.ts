/** How long operators take: by what they compute, or by what they move. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { add, matmul, reshape, transpose } from "../functional/index.ts";
import { newBuilder, workOf } from "../ops/index.ts";
import { secondsOfWork } from "./roofline.ts";

test("an operator takes as long as its operations or its bytes, whichever is longer", () => {
  const builder = newBuilder("roofline");
  const [a, b] = ["a", "b"].map((name) =>
    builder.input(name, { dtype: "float32", shape: [64, 64] }),
  );
  assert.ok(a !== undefined && b !== undefined);
  const product = matmul(a, b);
  // Another shape of the same bytes takes no time.
  const sum = add(reshape(product, [4096]), reshape(b, [4096]));
  const graph = builder.build([transpose(reshape(sum, [64, 64]), [1, 0])]);
  const bytes = 4 * 64 * 64;
  const flops = 2 * 64 ** 3;
  const work = workOf(graph);
  assert.deepEqual(
    work.map((own) => own.bytes),
    [3 * bytes, 3 * bytes, 2 * bytes],
  );
  assert.equal(work[0]?.flops, flops);
  const fast = { flopsPerSecond: 1e9, memorySpeed: 1e9 };
  assert.ok(Math.abs(secondsOfWork(work, fast) - (flops + 5 * bytes) / 1e9) < 1e-12);
  const slow = { flopsPerSecond: 1e15, memorySpeed: 1e9 };
  assert.ok(Math.abs(secondsOfWork(work, slow) - (8 * bytes) / 1e9) < 1e-12);
  const all = work.reduce((total, own) => total + own.flops, 0);
  assert.equal(secondsOfWork(work, { flopsPerSecond: 1e9 }), all / 1e9);
});
