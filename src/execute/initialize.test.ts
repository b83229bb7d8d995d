/** First values that are made in pieces have the bits of those that are drawn whole. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createOrtEngine, evaluate, type OrtEngine } from "../engine/index.ts";
import { neg, normal, uniform } from "../functional/index.ts";
import { type Initializer, initialKey } from "../nn/index.ts";
import { newBuilder } from "../ops/index.ts";
import { byteLength, type Tensor, type TensorType, tensorFrom } from "../tensor/index.ts";
import { initialize } from "./initialize.ts";

const SEED = 7;
const NAME = "weight";

describe("first values", () => {
  let engine: OrtEngine;
  before(() => {
    engine = createOrtEngine({ threads: 1 });
  });
  after(() => engine.close());

  // This stands first, because the arena is the process's and its statistics are those of its life.
  test("a large tensor takes the engine's memory for a piece of it only", async () => {
    const type = { dtype: "float32", shape: [8, 2 ** 20] } as const;
    const into = engine.allocateHost(byteLength(type)).tensor(type);
    const initializer = { kind: "normal", standardDeviation: 0.02 } as const;
    await initialize(engine, [{ name: NAME, type, initializer, into }], SEED);
    into.buffer.close();
    const builder = newBuilder("nothing");
    const input = builder.input("x", { dtype: "float32", shape: [1] });
    const executable = await engine.compile(builder.build([neg(input)]));
    const peak = engine.arena()?.peak ?? 0;
    executable.close();
    assert.ok(peak > 0 && peak < 2 ** 22, `${peak} bytes for a tensor of ${byteLength(type)}`);
  });

  async function whole(type: TensorType, initializer: Initializer): Promise<Uint8Array> {
    const builder = newBuilder("whole");
    const key = builder.input("key", { dtype: "int32", shape: [1] });
    const { dtype, shape } = type;
    assert.ok(initializer.kind === "normal" || initializer.kind === "uniform");
    const drawn =
      initializer.kind === "normal"
        ? normal(builder, shape, key, { ...initializer, dtype })
        : uniform(builder, shape, key, { ...initializer, dtype });
    const graph = builder.build([drawn]);
    const feeds = { key: tensorFrom("int32", [1], [initialKey(SEED, NAME)]) };
    const results = await evaluate(engine, graph, feeds, { threads: 1 });
    return (results[graph.outputs[0] as string] as Tensor).bytes;
  }

  const kinds: readonly Initializer[] = [
    { kind: "normal", standardDeviation: 0.02 },
    { kind: "normal", standardDeviation: 1, mean: -3 },
    { kind: "uniform", low: -0.25, high: 0.75 },
  ];
  // Vectors shorter than a piece, of whole pieces, and with one element more than those.
  const shapes = [[1], [3], [2, 1000], [131_072], [131_073], [262_143], [411, 977]];

  test("pieces have the bits of the whole", async () => {
    for (const initializer of kinds) {
      for (const dtype of ["float32", "float64"] as const) {
        for (const shape of shapes) {
          const type = { dtype, shape };
          // Behind a few other bytes, as in a flat vector.
          const into = engine.allocateHost(byteLength(type) + 64).tensor(type, 64);
          await initialize(engine, [{ name: NAME, type, initializer, into }], SEED);
          const expected = await whole(type, initializer);
          assert.ok(Buffer.compare(into.bytes, expected) === 0, `${initializer.kind} [${shape}]`);
          into.buffer.close();
        }
      }
    }
  });

  test("only a rank's own elements are written, with the bits of the whole", async () => {
    const type = { dtype: "float32", shape: [300, 1001] } as const;
    const own = [
      { start: 0, end: 5 },
      { start: 70_000, end: 140_001 },
      { start: 300_299, end: 300_300 },
    ];
    const values = Array.from({ length: 300_300 }, (_, index) => index);
    const initializers = [
      ...kinds,
      { kind: "tensor", tensor: tensorFrom("float32", type.shape, values) } as const,
    ];
    for (const initializer of initializers) {
      const into = engine.allocateHost(byteLength(type)).tensor(type);
      into.bytes.fill(0xff);
      await initialize(engine, [{ name: NAME, type, initializer, into, own }], SEED);
      const all =
        initializer.kind === "tensor" ? initializer.tensor.bytes : await whole(type, initializer);
      const expected = new Uint8Array(all.byteLength).fill(0xff);
      for (const { start, end } of own) {
        expected.set(all.subarray(4 * start, 4 * end), 4 * start);
      }
      assert.ok(Buffer.compare(into.bytes, expected) === 0, initializer.kind);
      into.buffer.close();
    }
  });
});
