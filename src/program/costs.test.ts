/** When tasks would run, at given speeds. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { neg } from "../functional/index.ts";
import { newBuilder } from "../ops/index.ts";
import { planTimeline } from "./costs.ts";
import { COMPUTE, type Program, type TaskStage } from "./program.ts";

const type = { dtype: "float32", shape: [1_000_000] } as const;
const builder = newBuilder("negated");
const graph = builder.build([neg(builder.input("x", type))]);
const program: Program = {
  buffers: new Map(),
  shared: new Set(),
  graphs: new Map([["negated", { graph, threads: 1 }]]),
  groups: new Map([["all", [0, 1]]]),
};

function stageOf(rank: number | undefined): TaskStage {
  const place = { buffer: "a", byteOffset: 0, type };
  const from = rank === undefined ? place : { ...place, rank };
  const run = { graph: "negated", inputs: { x: from }, outputs: { y: place } };
  const compute = { name: "compute", mode: "ordered", runs: [run] } as const;
  const counts = [4_000_000, 4_000_000];
  const call = { kind: "allGather", counts, dtype: "uint8" } as const;
  const gather = { name: "gather", mode: "collective", group: "all", call } as const;
  return {
    name: "both",
    mode: "tasks",
    tasks: [
      { name: "compute", lane: COMPUTE, after: [], work: [compute] },
      { name: "gather", lane: "gather", after: [], work: [gather] },
    ],
  };
}

// A million operations take 1 ms, and 8 MB of a collective 2 ms.
const speeds = { flopsPerSecond: 1e9, bytesPerSecond: 4e9, latency: 0 };

test("communication beside computation is hidden as far as that lasts", () => {
  const timeline = planTimeline(program, stageOf(undefined), speeds);
  near(timeline.computing, 1e-3);
  near(timeline.communicating, 2e-3);
  near(timeline.seconds, 2e-3);
  near(timeline.exposed, 1e-3);
});

test("what is read in the memory of the node's other ranks takes time of the same cores", () => {
  const slow = { ...speeds, bytesPerSecond: 1e12 };
  const timeline = planTimeline(program, stageOf(1), slow);
  // 4 MB at 10 GB/s.
  near(timeline.tasks[0]?.end ?? 0, 1.4e-3);
  near(timeline.computing, 1e-3);
  near(timeline.seconds, 1.4e-3);
  near(timeline.exposed, 0.4e-3);
});

function near(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) < 1e-9, `${actual} s, expected ${expected}`);
}
