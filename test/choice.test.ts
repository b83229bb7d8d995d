/**
 * What a choice between strategies is made from: predictions, against the plans that they predict.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { evenTopology } from "../src/mesh/index.ts";
import { gpt } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import {
  applyStrategies,
  chooseParallel,
  comparison,
  DISK_SPEED,
  totalOf,
} from "../src/parallel/index.ts";
import { buildStep, GRADIENT, stepFacts } from "../src/plan/index.ts";
import { lower, totalOf as planned, receivedBytes, residentMemory } from "../src/program/index.ts";
import { roomOf } from "../src/train/memory.ts";

const bucketBytes = 1e6;
const MACHINES = [
  { ranks: 1, nodes: 1, microBatches: 8, lanes: 1 },
  { ranks: 1, nodes: 1, microBatches: 8, lanes: 2 },
  { ranks: 4, nodes: 1, microBatches: 8, lanes: 1 },
  { ranks: 4, nodes: 4, microBatches: 8, lanes: 1 },
  { ranks: 8, nodes: 2, microBatches: 16, lanes: 1 },
  { ranks: 8, nodes: 2, microBatches: 32, lanes: 2 },
];
const optimizer = adamw();
const model = gpt({ layers: 6, width: 256, heads: 4, context: 64, vocabulary: 512 });

for (const { ranks, nodes, microBatches, lanes } of MACHINES) {
  test(`memory and traffic of ${ranks} ranks on ${nodes} nodes, ${microBatches} micro-batches, ${lanes} at once, are predicted within 10%`, () => {
    const built = model.build({ batch: 2, mode: "train" });
    const step = buildStep({ model: built, optimizer, microBatches, clip: 1 });
    const topology = evenTopology(ranks, nodes);
    const link = { latency: 1e-4, bytesPerSecond: 1e9 };
    const each = { memory: 1e12, lanes, flopsPerSecond: 8e10, bucketBytes };
    const machine = { ...each, topology, link, hasBuddies: true };
    const ways = comparison({ facts: stepFacts(step, optimizer), machine });
    for (const { sharing, cost } of ways) {
      const { data, shard, zero } = sharing;
      const { mesh, strategies } = chooseParallel({
        topology,
        step,
        optimizer,
        machine,
        parallel: { data, shard },
        zero: zero === 0 ? undefined : zero,
        buckets: { bucketBytes },
      });
      const program = lower(applyStrategies(strategies, step, mesh), {
        ground: { mesh, topology },
        rank: 0,
        lanes,
        optimizer,
      });
      // With zero 2 it runs only to find a tensor that is not finite.
      const graphs = new Map(
        [...program.graphs].filter(([name]) => zero !== 2 || name !== GRADIENT),
      );
      const { totals, compute, commit } = program.sides[0];
      const traffic = receivedBytes(
        [...totals, ...compute, ...commit],
        (group) => program.groups.get(group)?.indexOf(0) ?? 0,
      );
      const of = `${JSON.stringify(sharing)} ${JSON.stringify(cost)}`;
      const resident = new Map(residentMemory({ ...program, graphs }, lanes));
      // A prediction counts the tensors of steps; what a process takes beside them comes on top.
      resident.delete("the process itself");
      near(totalOf(cost.memory), planned(resident), `memory of ${of}`);
      near(cost.sent + cost.read, traffic, `traffic of ${of}`);
    }
  });
}

function near(predicted: number, actual: number, what: string): void {
  const isNear = Math.abs(predicted - actual) <= 0.1 * actual;
  assert.ok(isNear, `${what}: ${predicted} predicted, ${actual} planned`);
}

test("ranks share the limit of their control group and the memory of their node", () => {
  const place = { limit: 8e9, machine: 12e9, controlGroup: 1, lanes: 1, disk: 0 };
  const roomy = { ...place, limit: 64e9, machine: 64e9, controlGroup: 2, lanes: 2 };
  assert.deepEqual(roomOf([place], [[0]]), { memory: 8e9, lanes: 1, disk: undefined });
  assert.deepEqual(roomOf([place, place], [[0, 1]]), { memory: 4e9, lanes: 1, disk: undefined });
  // Each of its own control group: the machine's memory is what they share.
  const other = { ...place, controlGroup: 2 };
  assert.deepEqual(roomOf([place, other], [[0, 1]]), { memory: 6e9, lanes: 1, disk: undefined });
  // The same name on another node is another group; the least of all holds for all.
  assert.deepEqual(roomOf([place, place, roomy], [[0], [1], [2]]), {
    memory: 8e9,
    lanes: 2,
    disk: undefined,
  });
});

test("ranks of a node share its disk, and all ranks count with the smallest", () => {
  const place = { limit: 8e9, machine: 12e9, controlGroup: 1, lanes: 1, disk: 40e9 };
  const other = { ...place, disk: 30e9 };
  const { disk } = roomOf(
    [place, place, other, other],
    [
      [0, 1],
      [2, 3],
    ],
  );
  assert.deepEqual(disk, { room: 15e9, bytesPerSecond: DISK_SPEED / 2 });
  assert.equal(roomOf([place, { ...place, disk: 0 }], [[0], [1]]).disk, undefined);
});
