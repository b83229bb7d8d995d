/**
 * Random numbers as graphs: they have the same bits in the reference interpreter and on one and two
 * threads of ONNX Runtime, and look random to the usual tests. Keys are fixed, so nothing here
 * fails by chance.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createOrtEngine, type Device, evaluate } from "../src/engine/index.ts";
import { dropout, foldIn, full, normal, randomBits, uniform } from "../src/functional/index.ts";
import type { Graph, GraphBuilder, Value } from "../src/graph/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { interpret } from "../src/reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../src/tensor/index.ts";

type Draw = (builder: GraphBuilder, key: Value) => Value;

function graphOf(draw: Draw, keys: readonly number[]): { graph: Graph; feeds: { key: Tensor } } {
  const builder = newBuilder("random");
  const key = builder.input("key", { dtype: "int32", shape: [keys.length] });
  const graph = builder.build([draw(builder, key)]);
  return { graph, feeds: { key: tensorFrom("int32", [keys.length], keys) } };
}

describe("random numbers", () => {
  let engine: Device;
  before(() => {
    engine = createOrtEngine({ threads: 2 });
  });
  after(() => engine.close());

  async function run(draw: Draw, keys: readonly number[], threads = 2): Promise<number[]> {
    const { graph, feeds } = graphOf(draw, keys);
    const results = await evaluate(engine, graph, feeds, { threads });
    return toNumbers(results[graph.outputs[0] as string] as Tensor);
  }

  function reference(draw: Draw, keys: readonly number[]): number[] {
    const { graph, feeds } = graphOf(draw, keys);
    return toNumbers(interpret(graph, feeds)[graph.outputs[0] as string] as Tensor);
  }

  test("integers are the same in the reference interpreter and on every number of threads", async () => {
    const small: Draw = (builder, key) => randomBits(builder, [3, 1999], key);
    for (const key of [0, -1, 20_260_101]) {
      const expected = reference(small, [key]);
      assert.deepEqual(await run(small, [key], 1), expected);
      assert.deepEqual(await run(small, [key], 2), expected);
    }
    const large: Draw = (builder, key) => randomBits(builder, [400_003], key);
    assert.deepEqual(await run(large, [5], 1), await run(large, [5], 2));
    const folded: Draw = (_, key) => foldIn(key, 7);
    assert.deepEqual(await run(folded, [1, 2, 3]), reference(folded, [1, 2, 3]));
  });

  test("numbers do not depend on how many are drawn, nor on the shape", async () => {
    const few = await run((builder, key) => randomBits(builder, [5000], key), [3]);
    const many = await run((builder, key) => randomBits(builder, [2, 5000], key), [3]);
    assert.deepEqual(many.slice(0, 5000), few);
  });

  test("each bit is balanced, and neighbours are independent", async () => {
    const count = 2 ** 19;
    for (const key of [0, 1, -1]) {
      const bits = await run((builder, k) => randomBits(builder, [count], k), [key]);
      for (let bit = 0; bit < 32; bit++) {
        const at = (index: number) => ((bits[index] as number) >>> bit) & 1;
        let ones = 0;
        let changes = 0;
        for (let i = 1; i < count; i++) {
          ones += at(i);
          changes += at(i) ^ at(i - 1);
        }
        assert.ok(Math.abs(deviation(ones, count, 0.5)) < 4.5, `key ${key}, bit ${bit}`);
        assert.ok(Math.abs(deviation(changes, count, 0.5)) < 4.5, `key ${key}, bit ${bit} in turn`);
      }
      const high = bits.map((value) => value >>> 20);
      const low = bits.map((value) => value & 4095);
      const pairs = bits.map((value, i) => ((value >>> 26) << 6) | ((bits[i - 1] ?? 0) >>> 26));
      for (const [name, bins] of Object.entries({ high, low, pairs })) {
        assert.ok(Math.abs(chiSquare(bins, 4096)) < 4.5, `key ${key}: ${name} bits are even`);
      }
    }
  });

  test("neighbouring keys give independent numbers, also shifted ones", async () => {
    const count = 4096;
    const draw: Draw = (builder, key) => uniform(builder, [count], key);
    const rows = await Promise.all([0, 1, 2, 3].map((key) => run(draw, [key])));
    for (const [i, a] of rows.entries()) {
      for (const [j, b] of rows.entries()) {
        for (const shift of [0, 1, 2, 17]) {
          if (i === j && shift === 0) continue;
          const terms = a.slice(shift).map((x, k) => (x - 0.5) * ((b[k] as number) - 0.5) * 12);
          const z = terms.reduce((x, y) => x + y) / Math.sqrt(terms.length);
          assert.ok(Math.abs(z) < 4.5, `keys ${i} and ${j}, shifted by ${shift}: ${z}`);
        }
      }
    }
  });

  test("uniform numbers are in range, evenly distributed, and of the requested type", async () => {
    const count = 200_000;
    const draw: Draw = (builder, key) => uniform(builder, [count], key, { low: -2, high: 3 });
    const numbers = await run(draw, [11]);
    assert.ok(numbers.every((x) => x >= -2 && x < 3));
    const bins = numbers.map((x) => Math.floor(((x + 2) / 5) * 1000));
    assert.ok(Math.abs(chiSquare(bins, 1000)) < 4.5);
    const { graph } = graphOf(
      (builder, key) => uniform(builder, [2], key, { dtype: "float64" }),
      [1],
    );
    assert.equal(graph.types.get(graph.outputs[0] as string)?.dtype, "float64");
  });

  test("normal numbers have the right moments and tails, and the same bits on every number of threads", async () => {
    const count = 400_001;
    const draw: Draw = (builder, key) => normal(builder, [count], key);
    const numbers = await run(draw, [12], 2);
    assert.deepEqual(await run(draw, [12], 1), numbers);
    const mean = (power: number) => numbers.reduce((sum, x) => sum + x ** power, 0) / count;
    const root = Math.sqrt(count);
    assert.ok(Math.abs(mean(1)) * root < 4.5, "mean");
    assert.ok((Math.abs(mean(2) - 1) * root) / Math.sqrt(2) < 4.5, "variance");
    assert.ok((Math.abs(mean(3)) * root) / Math.sqrt(15) < 4.5, "skewness");
    assert.ok((Math.abs(mean(4) - 3) * root) / Math.sqrt(96) < 4.5, "kurtosis");
    const beyond = numbers.filter((x) => Math.abs(x) > 3).length;
    assert.ok(Math.abs(deviation(beyond, count, 0.0026998)) < 4.5, "beyond three deviations");
    const scaled: Draw = (builder, key) =>
      normal(builder, [2, 3], key, { mean: 5, standardDeviation: 0.1 });
    const [first = 0] = await run(scaled, [12]);
    const [expected = 0] = reference(scaled, [12]);
    assert.ok(Math.abs(first - expected) < 1e-5, "near the reference");
  });

  const masks =
    (rate: number, each: number): Draw =>
    (builder, key) =>
      dropout(full(builder, "float32", [key.shape[0] as number, each], 1), rate, key);

  test("dropout: a sample's mask depends on its key alone", async () => {
    const keys = [4, 5, 6, 7];
    const whole = await run(masks(0.3, 1000), keys);
    const parts = await Promise.all([[4], [5, 6], [7]].map((part) => run(masks(0.3, 1000), part)));
    assert.deepEqual(parts.flat(), whole);
    assert.deepEqual(await run(masks(0.3, 1000), keys, 1), whole);
    assert.deepEqual(reference(masks(0.3, 1000), keys), whole);
  });

  test("dropout: rate, scale, and masks of different samples are independent", async () => {
    for (const rate of [0.1, 0.5, 0.9]) {
      const [samples, each] = [32, 4096];
      const values = await run(
        masks(rate, each),
        Array.from({ length: samples }, (_, i) => i),
      );
      const scale = Math.fround(1 / (1 - rate));
      assert.ok(values.every((x) => x === 0 || x === scale));
      const kept = values.map((x) => Number(x !== 0));
      const total = kept.reduce((a, b) => a + b);
      assert.ok(Math.abs(deviation(total, kept.length, 1 - rate)) < 4.5, `rate ${rate}`);
      let correlations = 0;
      for (let i = 0; i < samples; i++) {
        for (let j = 0; j < i; j++) {
          let sum = 0;
          for (let k = 0; k < each; k++) {
            sum +=
              ((kept[i * each + k] as number) - 1 + rate) *
              ((kept[j * each + k] as number) - 1 + rate);
          }
          correlations += sum ** 2 / (each * (rate * (1 - rate)) ** 2);
        }
      }
      const mean = correlations / ((samples * (samples - 1)) / 2);
      assert.ok(Math.abs(mean - 1) < 0.3, `rate ${rate}: squared correlation ${mean}`);
    }
  });
});

/** Returns by how many standard deviations `count` of `trials` differs from the expected number. */
function deviation(count: number, trials: number, probability: number): number {
  return (count - trials * probability) / Math.sqrt(trials * probability * (1 - probability));
}

/** Returns chi-square over `bins` equal bins, as standard deviations from its mean. */
function chiSquare(values: readonly number[], bins: number): number {
  const counts = new Array<number>(bins).fill(0);
  for (const value of values) counts[value] = (counts[value] as number) + 1;
  const expected = values.length / bins;
  const sum = counts.reduce((total, n) => total + (n - expected) ** 2 / expected, 0);
  return (sum - (bins - 1)) / Math.sqrt(2 * (bins - 1));
}
