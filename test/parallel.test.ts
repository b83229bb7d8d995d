/** Parallel equals sequential: what ranks compute with a strategy is what one process computes alone. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { reduceSum } from "../src/functional/index.ts";
import { type Graph, typeOf } from "../src/graph/index.ts";
import { mlp } from "../src/nn/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import {
  applyStrategies,
  bucketBytes,
  createMesh,
  dataParallel,
  groupOf,
  placeOn,
  planBuckets,
} from "../src/parallel/index.ts";
import { gradientGraph, partitionGraph, plainLoss, simulateRanks } from "../src/program/index.ts";
import { elementCount, type Tensor, tensorFrom, toNumbers } from "../src/tensor/index.ts";
import { randomNumbers } from "./support/random.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

function inputsOf(graph: Graph, seed: number, shared: ReadonlySet<string>): Record<string, Tensor> {
  const entries = graph.inputs.map((name, index): [string, Tensor] => {
    const { dtype, shape } = typeOf(graph, name);
    const from = shared.has(name) ? index : 1000 * (seed + 1) + index;
    const values = randomNumbers(from, elementCount(shape), [0, dtype === "float32" ? 1 : 3]);
    const numbers = dtype === "float32" ? values : values.map(Math.floor);
    return [name, tensorFrom(dtype, shape, numbers)];
  });
  return Object.fromEntries(entries);
}

test("gradients of data-parallel ranks are the sum of their own, in any buckets", async () => {
  const model = mlp({ inputs: 8, hidden: [16, 16], outputs: 4 }).build({ batch: 4, mode: "train" });
  const { graph, gradients } = gradientGraph(model, plainLoss(model));
  const summed = [model.loss, ...gradients.values()];
  const parameters = new Set(model.parameters.map(({ name }) => name));
  const mesh = createMesh({ data: 3 });
  const own = (rank: number) => inputsOf(graph, rank, parameters);
  const alone = await simulateRanks(
    engine,
    [0, 1, 2].map((rank) => ({
      program: partitionGraph(graph),
      inputs: own(rank),
      groupOf: () => [rank],
    })),
  );
  for (const bytes of [1, 512, 2 ** 30]) {
    const strategy = dataParallel({ summed, bucketBytes: bytes });
    const buckets = planBuckets(graph, { summed, bucketBytes: bytes });
    assert.ok(bytes === 1 ? buckets.length === summed.length : buckets.length < summed.length);
    const together = await simulateRanks(
      engine,
      [0, 1, 2].map((rank) => ({
        program: partitionGraph(applyStrategies([strategy], graph, mesh, rank)),
        inputs: own(rank),
        groupOf: (axis: string) => groupOf(mesh, axis, rank),
      })),
    );
    for (const result of together) {
      for (const [index, values] of Object.values(result).entries()) {
        const parts = alone.map((one) => toNumbers(Object.values(one)[index] as Tensor));
        const sums = (parts[0] as number[]).map((_, at) =>
          parts.reduce((sum, part) => sum + (part[at] as number), 0),
        );
        for (const [at, value] of toNumbers(values).entries()) {
          assert.ok(Math.abs(value - (sums[at] as number)) < 1e-4, `output ${index}`);
        }
      }
    }
  }
});

test("a mesh has places and groups on each axis", () => {
  const mesh = createMesh({ data: 2, tensor: 3 });
  assert.equal(mesh.size, 6);
  assert.deepEqual(groupOf(mesh, "data", 4), [1, 4]);
  assert.deepEqual(groupOf(mesh, "tensor", 4), [3, 4, 5]);
  assert.deepEqual([placeOn(mesh, "data", 4), placeOn(mesh, "tensor", 4)], [1, 1]);
  assert.throws(() => groupOf(mesh, "pipeline", 0), /no axis "pipeline"/);
});

test("buckets are worth their latency, and several where there is enough", () => {
  assert.equal(bucketBytes({ latency: 1e-5, bytesPerSecond: 1e10 }, 80e6), 10e6);
  assert.equal(bucketBytes({ latency: 1e-3, bytesPerSecond: 1e8 }, 1e6), 1_600_000);
  assert.equal(bucketBytes({ latency: 1e-6, bytesPerSecond: 1e9 }, 1000), 2 ** 16);
});

/** Every collective on every rank, against its definition. */
test("simulated collectives give what they say", async () => {
  const size = 4;
  const expected: Record<string, (place: number) => number[]> = {
    AllReduce: () => [0, 1, 2, 3].map((i) => 60 + 4 * i),
    AllGather: () => [0, 10, 20, 30].flatMap((base) => [0, 1, 2, 3].map((i) => base + i)),
    ReduceScatter: (place) => [60 + 4 * place],
    Broadcast: () => [20, 21, 22, 23],
    AllToAll: (place) => [0, 10, 20, 30].map((base) => base + place),
  };
  for (const [op, result] of Object.entries(expected)) {
    const ranks = Array.from({ length: size }, (_, rank) => {
      const b = newBuilder(op);
      const x = b.input("x", { dtype: "float32", shape: [size] });
      const sized = op === "AllReduce" ? {} : { size };
      const root = op === "Broadcast" ? { root: 2 } : {};
      const y = b.one(`lockstep::${op}`, [x], { axis: "data", ...sized, ...root });
      const graph = b.build([y]);
      const numbers = [0, 1, 2, 3].map((i) => 10 * rank + i);
      return {
        program: partitionGraph(graph),
        inputs: { x: tensorFrom("float32", [size], numbers) },
        groupOf: () => [0, 1, 2, 3],
      };
    });
    for (const [place, outputs] of (await simulateRanks(engine, ranks)).entries()) {
      assert.deepEqual(toNumbers(Object.values(outputs)[0] as Tensor), result(place), op);
    }
  }
});

test("ranks that wait for each other are named", async () => {
  const program = (from: number) => {
    const b = newBuilder("circle");
    const x = b.one("lockstep::Recv", [], { axis: "pipe", from, dtype: "float32", shape: [2] });
    const sent = b.one("lockstep::Send", [x], { axis: "pipe", to: from });
    return partitionGraph(b.build([reduceSum(x), sent]));
  };
  const ranks = [1, 0].map((peer) => ({
    program: program(peer),
    inputs: {},
    groupOf: () => [0, 1],
  }));
  await assert.rejects(
    simulateRanks(engine, ranks),
    /2 ranks wait for each other.*rank 0 waits at/,
  );
});
