import assert from "node:assert/strict";
import { test } from "node:test";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { backward } from "../../autodiff/index.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { newBuilder } from "../index.ts";

test("Attention: gradient of 4 dims, causal, with a scale", () => {
  checkGradient({
    inputs: { q: [2, 2, 3, 2], k: [2, 2, 3, 2], v: [2, 2, 3, 4] },
    build: ({ q, k, v }, builder) =>
      builder.one("Attention", [q, k, v], { is_causal: 1, scale: 0.7 }),
    range: [-2, 2],
    second: true,
  });
});

test("Attention: gradient of 3 dims with heads of K and V shared (grouped queries)", () => {
  checkGradient({
    inputs: { q: [2, 3, 8], k: [2, 4, 4], v: [2, 4, 6] },
    build: ({ q, k, v }, builder) =>
      builder.one("Attention", [q, k, v], { q_num_heads: 4, kv_num_heads: 2 }),
    range: [-2, 2],
  });
});

test("Attention: gradient with masks of every shape, and of the mask", () => {
  for (const mask of [
    [3, 4],
    [1, 3, 4],
    [2, 3, 4],
    [2, 1, 3, 4],
    [2, 2, 1, 4],
  ]) {
    checkGradient({
      inputs: { q: [2, 2, 3, 2], k: [2, 1, 4, 2], v: [2, 1, 4, 2], mask },
      build: ({ q, k, v, mask: m }, builder) => builder.one("Attention", [q, k, v, m], {}),
    });
  }
  const visible = tensorFrom("bool", [3, 4], [1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0]);
  checkGradient({
    inputs: { q: [1, 2, 3, 2], k: [1, 2, 4, 2], v: [1, 2, 4, 2] },
    build: ({ q, k, v }, builder) =>
      builder.one("Attention", [q, k, v, builder.constant(visible)], {}),
  });
});

test("Attention: an input without a gradient is refused by name", () => {
  const builder = newBuilder("attention");
  const q = builder.input("q", { dtype: "float32", shape: [1, 2, 3, 4] });
  const y = builder.one("Attention", [q, q, q], { softcap: 5 });
  assert.throws(() => backward([y], [q], [y]), { code: "NO_GRADIENT", message: /softcap/ });
});
