/** Stages: where a pass is cut, what waits for whom, and what of the backward part may wait. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createMesh } from "../mesh/index.ts";
import { gpt, type ModelDefinition, resnet } from "../nn/index.ts";
import { flopsOf } from "../ops/index.ts";
import { adamw } from "../optimizer/index.ts";
import {
  buildStep,
  type ComputeTask,
  isPiece,
  type StagePart,
  type StepGraph,
  stageMakers,
  stageNeeds,
} from "../plan/index.ts";
import { type PipelineOptions, pipeline } from "./pipeline.ts";

const GPT = gpt({ layers: 8, width: 32, heads: 2, context: 16, vocabulary: 50 });
const RESNET = resnet({
  image: [3, 16, 16],
  classes: 10,
  blocks: [2, 2],
  channels: [8, 16],
  stem: "small",
});

function staged(definition: ModelDefinition, stages: number, options: PipelineOptions = {}) {
  const model = definition.build({ batch: 2, mode: "train" });
  const step = buildStep({ model, optimizer: adamw({}), microBatches: 8, clip: 1 });
  return pipeline(options).rewrite(step, createMesh({ pipeline: stages }));
}

function nameOf({ stage, direction }: StagePart): string {
  return `${stage}${direction}`;
}

function piecesOf(step: StepGraph): (ComputeTask & { stage: StagePart })[] {
  return step.tasks.filter(isPiece).map((piece) => ({ ...piece, stage: piece.stage as StagePart }));
}

test("stages run one after the other, forward and backward", () => {
  for (const [definition, stages] of [
    [GPT, 2],
    [GPT, 4],
    [RESNET, 3],
  ] as const) {
    const pieces = piecesOf(staged(definition, stages, { schedule: "1f1b" }));
    const order = Array.from({ length: stages }, (_, stage) => stage);
    const wanted = [...order.map((at) => `${at}F`), ...order.toReversed().map((at) => `${at}B`)];
    assert.deepEqual(
      pieces.map(({ stage }) => nameOf(stage)),
      wanted,
    );
    const makers = stageMakers(pieces);
    const before = new Set<string>();
    for (const { stage, inputs } of pieces) {
      before.add(nameOf(stage));
      for (const part of inputs.flatMap((name) => makers.get(name) ?? [])) {
        assert.ok(before.has(nameOf(part)), `${nameOf(stage)} reads of ${nameOf(part)}`);
      }
    }
  }
});

test("no stage of equal layers computes more than a quarter more than its share", () => {
  for (const stages of [2, 4, 8]) {
    const step = staged(GPT, stages);
    const flops = new Array<number>(stages).fill(0);
    for (const { stage, graph } of piecesOf(step)) {
      const own = flopsOf(step.graphs.get(graph) as Parameters<typeof flopsOf>[0]);
      flops[stage.stage] = (flops[stage.stage] as number) + own;
    }
    const mean = flops.reduce((sum, own) => sum + own, 0) / stages;
    assert.ok(Math.max(...flops) < 1.25 * mean, `${stages} stages: ${flops.join(", ")}`);
  }
});

test("for W no other stage waits, and B is about half of the backward part", () => {
  const step = staged(GPT, 4, { schedule: "zb-h1" });
  const pieces = piecesOf(step);
  const later = pieces.filter(({ stage }) => stage.direction === "W");
  assert.deepEqual(
    later.map(({ stage }) => stage.stage),
    [3, 2, 1],
  );
  for (const { outputs } of later) {
    const readers = pieces.filter(({ inputs }) => inputs.some((name) => outputs.includes(name)));
    assert.deepEqual(readers, []);
  }
  const flopsIn = (name: string) => {
    const found = pieces.find(({ stage }) => nameOf(stage) === name) as ComputeTask;
    return flopsOf(step.graphs.get(found.graph) as Parameters<typeof flopsOf>[0]);
  };
  const ratio = flopsIn("2W") / flopsIn("2B");
  assert.ok(ratio > 0.6 && ratio < 1.2, `W / B is ${ratio}`);
});

test("the gradient that a tied head has made is in B, because the first stage adds it to its own", () => {
  const pieces = piecesOf(staged(GPT, 2, { schedule: "zb-h1" }));
  const needs = stageNeeds(pieces)({ stage: 0, direction: "B" });
  assert.deepEqual(new Set(needs.map(nameOf)), new Set(["0F", "1B"]));
});

test("with recomputation a part of a stage has several pieces, and needs what all of them read", () => {
  const pieces = piecesOf(staged(GPT, 2, { recompute: true }));
  const own = pieces.filter(({ stage }) => nameOf(stage) === "0B");
  assert.ok(own.length > 1);
  const makers = stageMakers(pieces);
  const read = own.flatMap(({ inputs }) => inputs.flatMap((name) => makers.get(name) ?? []));
  const others = new Set(read.map(nameOf).filter((name) => name !== "0B"));
  const needs = stageNeeds(pieces)({ stage: 0, direction: "B" });
  assert.deepEqual(new Set(needs.map(nameOf)), others);
});
