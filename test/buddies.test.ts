/** The programs of all ranks of a step whose parts have buddies: pure, no process and no engine. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Topology } from "../src/mesh/index.ts";
import { gpt } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { applyStrategies, chooseParallel, type ParallelOptions } from "../src/parallel/index.ts";
import { buildStep, describeStep } from "../src/plan/index.ts";
import {
  type CollectiveStage,
  collectiveBytes,
  type Held,
  lower,
  type ProgramJson,
  programFromJson,
  programToJson,
  type Stage,
  type StepProgram,
} from "../src/program/index.ts";

const optimizer = adamw();
const model = gpt({ layers: 2, width: 32, heads: 2, context: 8, vocabulary: 64 }).build({
  batch: 1,
  mode: "train",
});
const alone = buildStep({ model, optimizer, microBatches: 8, clip: 1 });

/** The programs of all ranks, and what people read of the step. */
function programsOf(topology: Topology, stated: ParallelOptions) {
  const link = { latency: 1e-4, bytesPerSecond: 1e9 };
  const machine = { memory: Number.POSITIVE_INFINITY, lanes: 1, flopsPerSecond: 8e10, link };
  const parallel = chooseParallel({ ...stated, topology, step: alone, optimizer, machine });
  const { mesh, strategies } = parallel;
  const step = applyStrategies(strategies, alone, mesh);
  const ground = { mesh, topology: parallel.topology };
  const ranks = Array.from({ length: mesh.size }, (_, rank) => rank);
  const programs = ranks.map((rank) => lower(step, { ground, rank, optimizer }));
  return { programs, text: describeStep(step).join("\n") };
}

function collectivesOf(stages: readonly Stage[]): CollectiveStage[] {
  return stages.flatMap((stage) => {
    const own = stage.mode === "tasks" ? stage.tasks.flatMap(({ work }) => work) : [stage];
    return own.filter((each): each is CollectiveStage => each.mode === "collective");
  });
}

/** Whether a part takes memory on a rank. */
function has({ buffers }: StepProgram, { buffer, byteOffset, byteLength }: Held): boolean {
  const { parts } = buffers.get(buffer) ?? {};
  if (parts === undefined) return true;
  const end = byteOffset + byteLength;
  const within = parts.map((part) => {
    const from = Math.max(byteOffset, part.byteOffset);
    return Math.max(0, Math.min(end, part.byteOffset + part.byteLength) - from);
  });
  return within.reduce((sum, bytes) => sum + bytes, 0) === byteLength;
}

const toBuddies = (program: StepProgram) =>
  collectivesOf(program.sides[0].compute)
    .filter(({ name }) => name.endsWith("to buddies"))
    .reduce((sum, stage) => sum + collectiveBytes(stage), 0);

const endsTogether = (program: StepProgram) => {
  const last = program.sides[0].compute.at(-1);
  return last?.mode === "collective" && last.call.kind === "barrier";
};

const UNEVEN = [[0, 1, 2], [3]];

for (const zero of [1, 2, 3] as const) {
  describe(`zero ${zero}`, () => {
    for (const nodes of [
      [
        [0, 1],
        [2, 3],
      ],
      [[0], [1], [2]],
      UNEVEN,
    ]) {
      test(`over nodes ${JSON.stringify(nodes)}: every part is updated on two nodes`, () => {
        const shard = nodes.flat().length;
        const { programs, text } = programsOf({ nodes }, { zero, parallel: { shard } });
        assert.match(text, /and by a buddy on another node/);
        const nodeOf = (rank: number) => nodes.findIndex((ranks) => ranks.includes(rank));
        const { held, kept } = programs[0] as StepProgram;
        let owned = 0;
        for (const part of [...held, ...kept].filter(({ byteLength }) => byteLength > 0)) {
          const holders = programs.flatMap((program, rank) => (has(program, part) ? [rank] : []));
          assert.ok(holders.includes(part.rank));
          assert.equal(new Set(holders.map(nodeOf)).size, 2, JSON.stringify(part));
          assert.equal(holders.length, 2);
          if (part.buffer.endsWith("exp_avg")) owned += part.byteLength;
        }
        // With ZeRO-1 every rank has all sums.
        const sent = programs.reduce((sum, program) => sum + toBuddies(program), 0);
        assert.equal(sent, zero === 1 ? 0 : owned);
        for (const program of programs) {
          assert.ok(endsTogether(program));
          const json = JSON.parse(JSON.stringify(programToJson(program))) as ProgramJson;
          const again = JSON.parse(JSON.stringify(programToJson(programFromJson(json)))) as unknown;
          assert.deepEqual(again, json);
        }
      });
    }

    test("without buddies, each part is on one rank", () => {
      const stated = { zero, parallel: { shard: 4 }, buddies: false } as const;
      const { programs, text } = programsOf(
        {
          nodes: [
            [0, 1],
            [2, 3],
          ],
        },
        stated,
      );
      assert.doesNotMatch(text, /buddy/);
      for (const part of programs[0]?.kept ?? []) {
        assert.equal(
          programs.filter((program) => has(program, part)).length,
          part.byteLength > 0 ? 1 : 4,
        );
      }
    });

    test("within a node, and where each node has everything, there are none", () => {
      const inNode = programsOf({ nodes: [[0, 1, 2, 3]] }, { zero, parallel: { shard: 4 } });
      const hybrid = programsOf(
        {
          nodes: [
            [0, 1],
            [2, 3],
          ],
        },
        { zero, parallel: { data: 2, shard: 2 } },
      );
      for (const { programs, text } of [inNode, hybrid]) {
        assert.doesNotMatch(text, /buddy/);
        assert.ok(programs.every(({ wards }) => wards.length === 0));
      }
      // One group that sums in place knows when all have their sums; several groups do not.
      assert.ok(!inNode.programs.some(endsTogether));
      assert.ok(hybrid.programs.every(endsTogether));
    });
  });
}
