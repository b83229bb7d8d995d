/** The pass of a divided model, on the reference interpreter: what ranks make is what one process makes. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { randomNumbers } from "../../test/support/random.ts";
import { createOrtEngine } from "../engine/index.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { createMesh, isShard, placeOnAxis } from "../mesh/index.ts";
import { gpt, type ModelDefinition, resnet } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import {
  buildStep,
  type ComputeTask,
  GRADIENT,
  isPiece,
  type StepGraph,
  valueOf,
} from "../plan/index.ts";
import { fromTensor, interpret, interpretRanks, partOf, toTensor } from "../reference/index.ts";
import { elementCount, type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { applyStrategies, tensor } from "./index.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const MOST_DISTANCE = 1e-5;
const CLASSES = 12;

function passOf(step: StepGraph): { task: ComputeTask; graph: Graph } {
  const task = step.tasks.find(isPiece) as ComputeTask;
  return { task, graph: step.graphs.get(task.graph) as Graph };
}

function feedsOf(graph: Graph): Record<string, Tensor> {
  return Object.fromEntries(
    graph.inputs.map((name, index) => {
      const { dtype, shape } = typeOf(graph, name);
      const isClass = dtype.startsWith("int");
      const numbers = randomNumbers(
        index + 1,
        elementCount(shape),
        isClass ? [0, CLASSES] : [-1, 1],
      );
      const values = isClass ? numbers.map(Math.floor) : numbers;
      return [name, tensorFrom(dtype, shape, values)];
    }),
  );
}

/** Compares all outputs of the pass on the ranks of these axes with those of the whole. */
function checkPass(definition: ModelDefinition, sizes: Readonly<Record<string, number>>): void {
  const mesh = createMesh(sizes);
  const model = definition.build({ batch: 2, mode: "train" });
  const built = buildStep({ model, optimizer: adamw(), microBatches: 2 });
  const form = engine.prepare(passOf(built).graph);
  const step = { ...built, graphs: new Map(built.graphs).set(GRADIENT, form) };
  const { task, graph } = passOf(step);
  const strategies = Object.keys(sizes).map((axis) => tensor({ axis }));
  const divided = applyStrategies(strategies, step, mesh);
  const { graph: local } = passOf(divided);
  const feeds = feedsOf(graph);
  const whole = interpret(graph, feeds);
  const part = (value: string, full: Tensor, rank: number) =>
    mesh.axes.reduce((held, { name, size }) => {
      const on = valueOf(divided, value).placement[name];
      if (!isShard(on)) return held;
      const at = { dim: on.shard as number, sections: on.sections };
      return toTensor(partOf(fromTensor(held), at, placeOnAxis(mesh, name, rank), size));
    }, full);
  const own = Array.from({ length: mesh.size }, (_, rank) =>
    Object.fromEntries(
      graph.inputs.map((name, index) => {
        return [name, part(task.inputs[index] as string, feeds[name] as Tensor, rank)];
      }),
    ),
  );
  const results = interpretRanks(local, mesh, own);
  for (const [index, output] of graph.outputs.entries()) {
    for (const [rank, result] of results.entries()) {
      const value = task.outputs[index] as string;
      const wanted = toNumbers(part(value, whole[output] as Tensor, rank));
      const found = toNumbers(result[local.outputs[index] as string] as Tensor);
      // The gradient of the bias of keys is zero but for rounding.
      const scale = Math.max(1e-2, ...wanted.map(Math.abs));
      const distance = Math.max(...wanted.map((own, at) => Math.abs(own - (found[at] as number))));
      assert.ok(distance <= MOST_DISTANCE * scale, `${value}, rank ${rank}: ${distance}`);
    }
  }
}

const GPT = gpt({ layers: 2, width: 24, heads: 6, context: 12, vocabulary: CLASSES });
const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a GPT": GPT,
  "a Llama": gpt({
    layers: 1,
    width: 24,
    heads: 6,
    kvHeads: 2,
    context: 12,
    vocabulary: CLASSES,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
    tied: false,
  }),
  "a GPT with more tokens than one-hot rows are made for": gpt({
    layers: 1,
    width: 12,
    heads: 2,
    context: 8,
    vocabulary: 300,
  }),
  "a convolutional network": resnet({
    image: [3, 8, 8],
    classes: CLASSES,
    blocks: [1, 1],
    channels: [12, 24],
    stem: "small",
  }),
};

for (const [name, definition] of Object.entries(MODELS)) {
  for (const sizes of [{ tensor: 2 }, { tensor: 3 }, { tensor: 4 }, { tensor: 2, other: 2 }]) {
    test(`the pass of ${name} on ${JSON.stringify(sizes)}`, () => checkPass(definition, sizes));
  }
}

/** The elements of each value, as a rank has it, that the ranks of an axis exchange in the pass. */
function exchanged(definition: ModelDefinition): number[] {
  const model = definition.build({ batch: 1, mode: "train" });
  const built = buildStep({ model, optimizer: adamw(), microBatches: 2 });
  const form = engine.prepare(passOf(built).graph);
  const step = { ...built, graphs: new Map(built.graphs).set(GRADIENT, form) };
  const { graph } = passOf(tensor().rewrite(step, createMesh({ tensor: 2 })));
  const ops = ["AllReduce", "AllGather", "ReduceScatter", "AllToAll"].map(
    (op) => `lockstep::${op}`,
  );
  return graph.nodes
    .filter(({ op }) => ops.includes(op))
    .map(({ inputs, outputs }) =>
      Math.max(
        ...[inputs[0], outputs[0]].map((name) => elementCount(typeOf(graph, name ?? "").shape)),
      ),
    );
}

test("logits over a large vocabulary are never gathered, and no weight is", () => {
  const [context, width, vocabulary] = [128, 256, 32_000];
  const sizes = exchanged(gpt({ layers: 1, width, heads: 4, context, vocabulary }));
  assert.ok(Math.max(...sizes) <= context * width, `${Math.max(...sizes)} elements`);
});

test("each pair of products has one sum in each direction", () => {
  const layers = 6;
  const [context, width] = [256, 384];
  const sizes = exchanged(gpt({ layers, width, heads: 6, context }));
  const large = sizes.filter((size) => size >= context * width);
  // Two pairs in a layer, and what the embedding and the head take.
  assert.ok(large.length <= 4 * layers + 4, `${large.length} exchanges`);
});
