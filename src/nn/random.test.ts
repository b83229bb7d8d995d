import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine, evaluate } from "../engine/index.ts";
import { newBuilder } from "../ops/index.ts";
import { interpret } from "../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { randomNormal, randomUniform } from "./random.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const COUNT = 40_000;

function graphOf(kind: typeof randomUniform, count = COUNT) {
  const b = newBuilder("random");
  const key = b.input("key", { dtype: "int32", shape: [2] });
  return b.build([kind(key, [2, count], { stream: 3, dtype: "float32" })]);
}

const key = tensorFrom("int32", [2], [12345, -7]);

async function draw(kind: typeof randomUniform): Promise<number[]> {
  const graph = graphOf(kind);
  const results = await evaluate(engine, graph, { key });
  return toNumbers(results[graph.outputs[0] as string] as Tensor);
}

test("the reference interpreter draws the same bits", async () => {
  const graph = graphOf(randomUniform, 100);
  const got = await evaluate(engine, graph, { key });
  assert.deepEqual(got, interpret(graph, { key }));
});

test("uniform numbers are even, and rows unrelated", async () => {
  const numbers = await draw(randomUniform);
  const bins = new Array<number>(100).fill(0);
  for (const value of numbers) {
    const bin = Math.floor(value * 100);
    bins[bin] = (bins[bin] as number) + 1;
  }
  const expected = (2 * COUNT) / 100;
  const chiSquare = bins.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
  assert.ok(chiSquare > 50 && chiSquare < 160, `chi-square ${chiSquare}`);
  for (const lag of [1, 2, 64, COUNT]) {
    let product = 0;
    const pairs = 2 * COUNT - lag;
    for (let i = 0; i < pairs; i++) {
      product += ((numbers[i] as number) - 0.5) * ((numbers[i + lag] as number) - 0.5);
    }
    const correlation = (12 * product) / pairs;
    assert.ok(Math.abs(correlation) < 5 / Math.sqrt(pairs), `lag ${lag}: ${correlation}`);
  }
});

test("normal numbers have mean 0, deviation 1 and light tails", async () => {
  const numbers = await draw(randomNormal);
  const mean = numbers.reduce((a, b) => a + b) / numbers.length;
  const variance = numbers.reduce((a, b) => a + b * b, 0) / numbers.length;
  const beyond2 = numbers.filter((n) => Math.abs(n) > 2).length / numbers.length;
  assert.ok(Math.abs(mean) < 0.015 && Math.abs(variance - 1) < 0.03, `${mean} ${variance}`);
  assert.ok(Math.abs(beyond2 - 0.0455) < 0.005, `${beyond2}`);
  assert.ok(numbers.every(Number.isFinite));
});
