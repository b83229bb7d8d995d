/** The pass of a divided model, on the reference interpreter: what ranks make is what one process makes. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { randomNumbers } from "../../test/support/random.ts";
import { createOrtEngine } from "../engine/index.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { createMesh, isShard } from "../mesh/index.ts";
import { gpt, type ModelDefinition } from "../nn/index.ts";
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
import { tensor } from "./index.ts";

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

/** Compares all outputs of the pass on so many ranks with those of the whole. */
function checkPass(definition: ModelDefinition, ranks: number): void {
  const model = definition.build({ batch: 2, mode: "train" });
  const built = buildStep({ model, optimizer: adamw(), microBatches: 2 });
  const form = engine.prepare(passOf(built).graph);
  const step = { ...built, graphs: new Map(built.graphs).set(GRADIENT, form) };
  const { task, graph } = passOf(step);
  const divided = tensor().rewrite(step, createMesh({ tensor: ranks }));
  const { graph: local } = passOf(divided);
  const feeds = feedsOf(graph);
  const whole = interpret(graph, feeds);
  const part = (value: string, full: Tensor, place: number) => {
    const on = valueOf(divided, value).placement["tensor"];
    if (!isShard(on)) return full;
    const at = { dim: on.shard as number, sections: on.sections };
    return toTensor(partOf(fromTensor(full), at, place, ranks));
  };
  const own = Array.from({ length: ranks }, (_, place) =>
    Object.fromEntries(
      graph.inputs.map((name, index) => {
        return [name, part(task.inputs[index] as string, feeds[name] as Tensor, place)];
      }),
    ),
  );
  const results = interpretRanks(local, createMesh({ tensor: ranks }), own);
  for (const [index, output] of graph.outputs.entries()) {
    for (const [place, result] of results.entries()) {
      const value = task.outputs[index] as string;
      const wanted = toNumbers(part(value, whole[output] as Tensor, place));
      const found = toNumbers(result[local.outputs[index] as string] as Tensor);
      const scale = Math.max(1e-3, ...wanted.map(Math.abs));
      const distance = Math.max(...wanted.map((own, at) => Math.abs(own - (found[at] as number))));
      assert.ok(
        distance <= MOST_DISTANCE * scale,
        `${value}, place ${place} of ${ranks}: ${distance}`,
      );
    }
  }
}

const GPT = gpt({ layers: 2, width: 24, heads: 6, context: 12, vocabulary: CLASSES });

for (const ranks of [2, 3, 4]) {
  test(`the pass of a GPT on ${ranks} ranks`, () => checkPass(GPT, ranks));
}
