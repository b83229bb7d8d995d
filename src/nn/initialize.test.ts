import assert from "node:assert/strict";
import { test } from "node:test";
import { interpret } from "../reference/index.ts";
import {
  elementCount,
  type Tensor,
  type TensorType,
  tensorFrom,
  toNumbers,
} from "../tensor/index.ts";
import { initialKey, initialValue } from "./initialize.ts";
import type { Initializer } from "./model.ts";

const type: TensorType = { dtype: "float32", shape: [30, 20] };

function values(initializer: Initializer, seed = 1, name = "weight", of = type): number[] {
  const value = initialValue({ name, type: of, initializer }, seed);
  if (value.kind === "tensor") return toNumbers(value.tensor);
  const found = new Array<number>(elementCount(of.shape));
  for (const { graph, inputs, parts } of value.pieces) {
    const outputs = interpret(graph, inputs);
    assert.equal(graph.outputs.length, parts.length);
    for (const [index, { start, end }] of parts.entries()) {
      const output = outputs[graph.outputs[index] as string] as Tensor;
      assert.deepEqual([output.dtype, output.shape], [of.dtype, [end - start]]);
      for (const [at, number] of toNumbers(output).entries()) {
        assert.equal(found[start + at], undefined, "each element is made once");
        found[start + at] = number;
      }
    }
  }
  assert.ok(!found.includes(undefined as unknown as number), "every element is made");
  return found;
}

test("initial values are what their initializer says", () => {
  assert.ok(values({ kind: "zeros" }).every((v) => v === 0));
  assert.ok(values({ kind: "ones" }).every((v) => v === 1));
  assert.ok(values({ kind: "constant", value: 2.5 }).every((v) => v === 2.5));
  const tensor = tensorFrom("float32", [1], [7]);
  assert.deepEqual(values({ kind: "tensor", tensor }), [7]);
  const even = values({ kind: "uniform", low: -3, high: -1 });
  assert.ok(even.every((v) => v >= -3 && v < -1));
  assert.ok(Math.min(...even) < -2.98 && Math.max(...even) > -1.02);
  const normal = values({ kind: "normal", standardDeviation: 0.5, mean: 2 });
  const mean = normal.reduce((a, b) => a + b) / normal.length;
  const deviation = Math.sqrt(normal.reduce((a, b) => a + (b - mean) ** 2, 0) / normal.length);
  assert.ok(Math.abs(mean - 2) < 0.08 && Math.abs(deviation - 0.5) < 0.06, `${mean} ${deviation}`);
});

test("initial values depend only on seed and name", () => {
  const normal: Initializer = { kind: "normal", standardDeviation: 1 };
  assert.deepEqual(values(normal), values(normal));
  assert.notDeepEqual(values(normal), values(normal, 2));
  assert.notDeepEqual(values(normal), values(normal, 1, "weights"));
  const keys = ["a", "b", "ab", "ba", ""].flatMap((name) =>
    [0, 1, 2, 2 ** 32, 2 ** 40].map((seed) => initialKey(seed, name)),
  );
  assert.equal(new Set(keys).size, keys.length);
});
