/** What a file says of devices is what strategies do, or it is refused. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../engine/index.ts";
import type { Graph } from "../graph/index.ts";
import { evenTopology } from "../mesh/index.ts";
import { type DeviceConfiguration, gpt } from "../nn/index.ts";
import { adamw, muon, type Optimizer } from "../optimizer/index.ts";
import {
  buildStep,
  GRADIENT,
  isPiece,
  type StepGraph,
  stepFromJson,
  stepToJson,
  valueOf,
} from "../plan/index.ts";
import { applyStrategies, chooseParallel } from "./index.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const GPT = gpt({ layers: 2, width: 24, heads: 6, context: 12, vocabulary: 12 });

/** The step of a model of which a file says this, in the form in which an engine runs it. */
function stepOf(said: Partial<DeviceConfiguration>, optimizer: Optimizer = adamw()): StepGraph {
  const own = { name: "own", devices: 2, stages: 0, stageOf: {}, parameters: {}, ...said };
  const devices = { file: "m.onnx", configurations: [own] };
  const model = { ...GPT.build({ batch: 2, mode: "train" }), devices };
  const step = buildStep({ model, optimizer, microBatches: 4 });
  const pass = engine.prepare(step.graphs.get(GRADIENT) as Graph);
  return { ...step, graphs: new Map(step.graphs).set(GRADIENT, pass) };
}

function shared(step: StepGraph, sizes: Readonly<Record<string, number>>) {
  const size = Object.values(sizes).reduce((product, own) => product * own, 1);
  const link = { latency: 1e-4, bytesPerSecond: 1e9 };
  const parallel = chooseParallel({
    topology: evenTopology(size, 1),
    step,
    optimizer: adamw(),
    machine: { memory: Number.POSITIVE_INFINITY, lanes: 1, flopsPerSecond: 1e10, link },
    parallel: sizes,
  });
  return { ...parallel, step: applyStrategies(parallel.strategies, step, parallel.mesh) };
}

/** The stages that read a parameter in the forward pass. */
function stagesReading({ tasks }: StepGraph, parameter: string): (number | undefined)[] {
  return tasks
    .filter(isPiece)
    .filter(
      ({ stage, inputs }) => stage?.direction === "F" && inputs.includes(`parameter:${parameter}`),
    )
    .map(({ stage }) => stage?.stage);
}

const CUTS = {
  // A search cuts the first by columns, the second by rows, and the third by sections.
  "blocks.0.feed_forward.up.weight": { parts: 2, dim: 0 },
  "blocks.0.feed_forward.down.weight": { parts: 1, dim: 0 },
  "blocks.1.attention.qkv.weight": { parts: 2, dim: 1, sections: [16, 56] },
  "token_embedding.weight": { parts: 2, dim: 1 },
};

test("parameters are held as the file says, and others as a search finds", () => {
  const step = stepOf({ parameters: CUTS });
  const { step: divided, reason } = shared(step, { tensor: 2 });
  const on = (name: string) => valueOf(divided, `parameter:${name}`).placement["tensor"];
  assert.deepEqual(on("blocks.0.feed_forward.up.weight"), { shard: 0 });
  assert.equal(on("blocks.0.feed_forward.down.weight"), undefined);
  assert.deepEqual(on("blocks.1.attention.qkv.weight"), { shard: 1, sections: [16, 56] });
  assert.deepEqual(on("token_embedding.weight"), { shard: 1 });
  assert.deepEqual(on("blocks.1.feed_forward.up.weight"), { shard: 1 });
  assert.match(reason, /4 parameters are held as m\.onnx \("own"\) says\./);
});

test("stages begin where the file says, and nodes of which it says nothing follow what they read", () => {
  const stageOf = { "position_embedding/Add_1": 0, "blocks.0.norm2/LayerNormalization_1": 1 };
  const { step, reason } = shared(stepOf({ stages: 2, stageOf }), { pipeline: 2 });
  assert.deepEqual(stagesReading(step, "blocks.0.attention.qkv.weight"), [0]);
  assert.deepEqual(stagesReading(step, "blocks.0.norm2.weight"), [1]);
  assert.deepEqual(stagesReading(step, "blocks.0.feed_forward.up.weight"), [1]);
  assert.match(reason, /Stages are those of m\.onnx \("own"\)\./);
  const other = { "position_embedding/Add_1": 0, "norm/LayerNormalization_1": 1 };
  const { step: late } = shared(stepOf({ stages: 2, stageOf: other }), { pipeline: 2 });
  assert.deepEqual(stagesReading(late, "blocks.1.feed_forward.up.weight"), [0]);
  assert.deepEqual(stagesReading(late, "norm.weight"), [1]);
});

test("a step remembers what was said when it is written and read", () => {
  const step = stepOf({ parameters: CUTS, stages: 2, stageOf: { a: 1 } });
  const text = JSON.stringify(stepToJson(step));
  assert.deepEqual(stepFromJson(JSON.parse(text)).devices, step.devices);
});

const late = { "position_embedding/Add_1": 1, "blocks.0.norm2/LayerNormalization_1": 0 };
const REFUSED: readonly (readonly [string, RegExp, Partial<DeviceConfiguration>, object])[] = [
  [
    "another number of stages",
    /pipeline of 2 stages does not fit m\.onnx, which has pipeline stages for 3/,
    { stages: 3 },
    { pipeline: 2 },
  ],
  [
    "another number of parts",
    /tensor 4 does not fit m\.onnx, which cuts parameters for 2/,
    { parameters: CUTS },
    { tensor: 4 },
  ],
  [
    "a node that reads what a later stage makes",
    /in pipeline stage 0 .* but it reads what stage 1 makes/,
    { stages: 2, stageOf: late },
    { pipeline: 2 },
  ],
  ["a stage without parameters", /cannot/, { stages: 2, stageOf: { loss: 1 } }, { pipeline: 2 }],
];

for (const [what, text, said, sizes] of REFUSED) {
  test(`refused: ${what}`, () => {
    assert.throws(() => shared(stepOf(said), sizes as Record<string, number>), {
      code: "INVALID_OPTION",
      message: text,
    });
  });
}

test("refused: a cut of a matrix that its optimizer updates whole", () => {
  const step = stepOf({ parameters: CUTS }, muon());
  assert.throws(() => shared(step, { tensor: 2 }), {
    code: "INVALID_OPTION",
    message:
      /m\.onnx \("own"\) cuts "blocks\.0\.feed_forward\.up\.weight", but its optimizer updates whole/,
  });
});

test("what is not followed is said", () => {
  const step = stepOf({ parameters: CUTS, stages: 2, stageOf: {} });
  const { reason } = shared(step, { data: 2 });
  assert.match(
    reason,
    /Not followed of m\.onnx: how parameters are cut \(tensor\), its pipeline stages \(pipeline\)/,
  );
  const mixed = { ...CUTS, "norm.weight": { parts: 4, dim: 0 } };
  const told = shared(stepOf({ parameters: mixed }), { tensor: 2 }).reason;
  assert.match(told, /It cuts 1 others in another number of parts: a search places them\./);
});
