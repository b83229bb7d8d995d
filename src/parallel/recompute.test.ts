/**
 * Which nodes are computed again, what is kept instead, and how a memory limit chooses; tested on
 * the step alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createMesh } from "../mesh/index.ts";
import { gpt, type ModelDefinition, resnet } from "../nn/index.ts";
import { flopsOf } from "../ops/index.ts";
import { adamw } from "../optimizer/index.ts";
import {
  buildStep,
  GRADIENT,
  isOfKind,
  isPiece,
  passMemory,
  type StepGraph,
  stepFromJson,
  stepToJson,
  unitOf,
  valueOf,
} from "../plan/index.ts";
import {
  applyStrategies,
  buckets,
  bytesOfText,
  data,
  recompute,
  type Strategy,
  zero2,
  zero3,
} from "./index.ts";

const LAYERS = 6;
const GPT = gpt({ layers: LAYERS, width: 64, heads: 4, context: 64, dropout: 0.1 });
const RESNET = resnet({
  image: [3, 16, 16],
  classes: 10,
  blocks: [2, 2],
  channels: [8, 16],
  stem: "small",
});

function stepOf(definition: ModelDefinition = GPT): StepGraph {
  const model = definition.build({ batch: 2, mode: "train" });
  return buildStep({ model, optimizer: adamw(), microBatches: 4, clip: 1 });
}

function rewritten(strategies: readonly Strategy[], step = stepOf(), ranks = 1): StepGraph {
  return applyStrategies(strategies, step, createMesh(ranks === 1 ? {} : { data: ranks }));
}

const graphsOf = (step: StepGraph) =>
  step.tasks.filter(isPiece).map(({ graph }) => {
    const found = step.graphs.get(graph);
    assert.ok(found !== undefined);
    return found;
  });
const flops = (step: StepGraph) => graphsOf(step).reduce((sum, graph) => sum + flopsOf(graph), 0);
const memory = (step: StepGraph) => {
  const { between, within } = passMemory(step);
  return between + within;
};

test("blocks: each has a forward and a backward piece, in little more than the memory of one block", () => {
  const before = stepOf();
  const after = rewritten([recompute("blocks")], before);
  // There are embeddings, blocks and the head; forward turns to backward within the head.
  assert.equal(after.tasks.filter(isPiece).length, 2 * (LAYERS + 1) + 1);
  assert.ok(memory(after) < 0.35 * memory(before), `${memory(after)} of ${memory(before)}`);
  // Forward is a third of forward and backward, and neither the head nor the end of a block is
  // repeated.
  const share = flops(after) / flops(before);
  assert.ok(share > 1.1 && share < 1.34, `${share}`);
  assert.equal(after.graphs.get(GRADIENT), before.graphs.get(GRADIENT));
});

test("a block passes on its last activation, and the ones inside it are not kept", () => {
  const step = rewritten([recompute("blocks")]);
  const kept = step.tasks
    .filter(isPiece)
    .flatMap(({ outputs }) => outputs)
    .filter((name) => valueOf(step, name).role === "activation");
  const inner = kept.filter((name) => /feed_forward|attention|norm\d/.test(name));
  assert.deepEqual(inner, []);
});

test("every gradient, term and state is made once, by nodes that are not repeated", () => {
  for (const definition of [GPT, RESNET]) {
    const before = stepOf(definition);
    const after = rewritten([recompute("blocks")], before);
    const results = (step: StepGraph) =>
      step.tasks
        .filter(isPiece)
        .flatMap(({ outputs }) => outputs)
        .filter((name) => valueOf(step, name).role !== "activation")
        .sort();
    assert.deepEqual(results(after), results(before));
    for (const { outputs, nodes } of graphsOf(after)) {
      const repeated = nodes.filter(({ name }) => name.endsWith("/again"));
      for (const output of repeated.flatMap((node) => node.outputs)) {
        assert.ok(!outputs.includes(output), output);
      }
    }
  }
});

test("a limit of memory is kept, with fewer operations the larger it is", () => {
  const before = stepOf();
  const blocks = rewritten([recompute("blocks")], before);
  const [most, least] = [memory(before), memory(blocks)];
  let earlier = Number.POSITIVE_INFINITY;
  for (const share of [0, 0.2, 0.4, 0.6, 0.8]) {
    const limit = Math.ceil(least + share * (most - least));
    const step = rewritten([recompute({ memory: limit })], before);
    assert.ok(memory(step) <= limit, `${memory(step)} within ${limit}`);
    assert.ok(flops(step) <= earlier && flops(step) <= flops(blocks));
    earlier = flops(step);
  }
  assert.ok(earlier < flops(blocks));
  const enough = rewritten([recompute({ memory: `${most} B` })], before);
  assert.equal(enough.tasks.filter(isPiece).length, 1, "nothing is cut where all fits");
  // On several ranks, another strategy may cut the pass, and the limit holds for its pieces too.
  const shared = rewritten([recompute({ memory: most }), data(), zero3(["data"])], before, 2);
  assert.ok(memory(shared) <= most);
});

test("the number of blocks is minimal: one less exceeds the limit", () => {
  const before = stepOf();
  const repeats = (step: StepGraph) =>
    graphsOf(step).filter(({ nodes }) => nodes.some(({ name }) => name.endsWith("/again"))).length;
  const blocks = rewritten([recompute("blocks")], before);
  const least = memory(blocks);
  const limits = [1.2, 1.5, 2].map((factor) => Math.ceil(least * factor));
  const counts = limits.map((limit) => repeats(rewritten([recompute({ memory: limit })], before)));
  assert.deepEqual(
    counts,
    counts.toSorted((a, b) => b - a),
  );
  assert.ok((counts[0] ?? 0) < repeats(blocks) || (counts[2] ?? 0) < (counts[0] ?? 0));
});

test("a limit below that of all blocks, a model of one block and an invalid size are refused", () => {
  const tooLittle = () => rewritten([recompute({ memory: "10 kB" })]);
  assert.throws(tooLittle, /take \S+ MB, or \S+ [kM]B with all blocks computed again.*10 kB/);
  const linear = gpt({ layers: 1, width: 8, heads: 1, context: 4 });
  assert.throws(() => recompute({ memory: "much" }), /"much" is not a size of memory/);
  const cutBefore = () => rewritten([zero3(["data"]), recompute("blocks")], stepOf(linear), 2);
  assert.throws(cutBefore, /recompute comes before/);
});

test("sizes of memory are parsed and printed", () => {
  const sizes = ["2 GB", "1.5kb", "512 MiB", "8e6", "7B", 42];
  assert.deepEqual(sizes.map(bytesOfText), [2e9, 1500, 2 ** 29, 8e6, 7, 42]);
  for (const wrong of ["", "GB", "-1 GB", "2 parsecs", "0 MB", "1..2 GB", Number.NaN, -3]) {
    assert.throws(() => bytesOfText(wrong), /not a size of memory/, `${wrong}`);
  }
});

test("with zero 3, a backward piece gathers only the parameters of its block", () => {
  const step = rewritten([recompute("blocks"), data(), zero3(["data"])], stepOf(), 2);
  const gathers = step.tasks.filter(isOfKind("gather")).filter(({ each }) => each !== "step");
  const units = gathers.map(({ inputs }) => [
    ...new Set(inputs.map((name) => unitOf(valueOf(step, name).of))),
  ]);
  for (const own of units) assert.ok(own.length <= 2, own.join());
  const ofBlock = (block: number) =>
    units.filter((own) => own.includes(`blocks.${block}`)).map((own) => own.length);
  for (let block = 0; block < LAYERS; block++) assert.deepEqual(ofBlock(block), [1, 1]);
  const sums = step.tasks.filter(isOfKind("reduce")).filter(({ each }) => each !== "step");
  assert.ok(sums.length >= LAYERS, "gradients go where they are summed behind each piece");
});

test("buckets and zero 2 keep the pieces, and sum each gradient once", () => {
  for (const other of [buckets({ bucketBytes: 1e5 }), zero2(["data"], 1e5)]) {
    const whole = rewritten([data(), other], stepOf(), 2);
    const again = rewritten([recompute("blocks"), data(), other], stepOf(), 2);
    const summed = (step: StepGraph) =>
      step.tasks
        .filter(isOfKind("reduce"))
        .flatMap(({ inputs }) => inputs)
        .sort();
    assert.deepEqual(summed(again), summed(whole));
    assert.equal(again.tasks.filter(isPiece).length, 2 * (LAYERS + 1) + 1);
    assert.ok(again.tasks.filter(isOfKind("reduce")).length > 2);
  }
});

test("a step with repeated nodes survives JSON", () => {
  const step = rewritten([recompute("blocks")]);
  const text = JSON.stringify(stepToJson(step));
  assert.equal(JSON.stringify(stepToJson(stepFromJson(JSON.parse(text)))), text);
});
