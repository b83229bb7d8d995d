/**
 * The pass of a model that ranks divide, on the reference interpreter: what they make together is what
 * one process makes.
 */
import assert from "node:assert/strict";
import { createOrtEngine } from "../../src/engine/index.ts";
import { type Graph, typeOf } from "../../src/graph/index.ts";
import { createMesh, groupOf, isShard, placeOnAxis } from "../../src/mesh/index.ts";
import type { ModelDefinition } from "../../src/nn/index.ts";
import { adamw } from "../../src/optimizer/index.ts";
import { applyStrategies, type Strategy } from "../../src/parallel/index.ts";
import {
  buildStep,
  type ComputeTask,
  GRADIENT,
  isPiece,
  type StepGraph,
  valueOf,
} from "../../src/plan/index.ts";
import {
  fromTensor,
  interpret,
  interpretRanks,
  partOf,
  toTensor,
} from "../../src/reference/index.ts";
import { elementCount, type Tensor, tensorFrom, toNumbers } from "../../src/tensor/index.ts";
import { randomNumbers } from "./random.ts";

/** Whoever imports this closes it. */
export const engine = createOrtEngine({ threads: 1 });

const MOST_DISTANCE = 1e-5;
export const CLASSES = 12;

type Sizes = Readonly<Record<string, number>>;

function passOf(step: StepGraph): { task: ComputeTask; graph: Graph } {
  const task = step.tasks.find(isPiece) as ComputeTask;
  return { task, graph: step.graphs.get(task.graph) as Graph };
}

/** The step of a model in the form in which it runs, with micro-batches of so many samples. */
export function stepOf(
  definition: ModelDefinition,
  batch = 2,
  microBatches = 2,
  attention?: "ring",
): StepGraph {
  const model = definition.build({ batch, mode: "train" });
  const built = buildStep({ model, optimizer: adamw(), microBatches, attention });
  const form = engine.prepare(passOf(built).graph);
  return { ...built, graphs: new Map(built.graphs).set(GRADIENT, form) };
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
export function checkPass(step: StepGraph, strategies: readonly Strategy[], sizes: Sizes): void {
  const mesh = createMesh(sizes);
  const { task, graph } = passOf(step);
  const divided = applyStrategies(strategies, step, mesh);
  const { graph: local, task: own } = passOf(divided);
  const feeds = feedsOf(graph);
  const whole = interpret(graph, feeds);
  const part = (value: string, full: Tensor, rank: number) =>
    mesh.axes.reduce((held, { name, size }) => {
      const on = valueOf(divided, value).placement[name];
      if (!isShard(on)) return held;
      const at = { dim: on.shard as number, sections: on.sections };
      return toTensor(partOf(fromTensor(held), at, placeOnAxis(mesh, name, rank), size));
    }, full);
  const given = Array.from({ length: mesh.size }, (_, rank) =>
    Object.fromEntries(
      graph.inputs.map((name, index) => {
        return [name, part(task.inputs[index] as string, feeds[name] as Tensor, rank)];
      }),
    ),
  );
  const results = interpretRanks(local, mesh, given).map((result) =>
    local.outputs.map((name) => toNumbers(result[name] as Tensor)),
  );
  for (const [index, output] of graph.outputs.entries()) {
    const value = own.outputs[index] as string;
    const { placement } = valueOf(divided, value);
    const terms = mesh.axes.filter(({ name }) => placement[name] === "partial");
    const axes = terms.map(({ name }) => name);
    for (const rank of results.keys()) {
      const wanted = toNumbers(part(value, whole[output] as Tensor, rank));
      const found = groupOf(mesh, axes, rank)
        .map((other) => results[other]?.[index] ?? [])
        .reduce((sum, term) => sum.map((number, at) => number + (term[at] as number)));
      // The gradient of the bias of keys is zero but for rounding.
      const scale = Math.max(1e-2, ...wanted.map(Math.abs));
      const distance = Math.max(...wanted.map((one, at) => Math.abs(one - (found[at] as number))));
      assert.ok(distance <= MOST_DISTANCE * scale, `${value}, rank ${rank}: ${distance}`);
    }
  }
}

/** What ranks exchange in a pass, in order. */
export interface Exchanged {
  readonly op: string;
  /** The elements of a value, before or behind it, whichever are more. */
  readonly elements: number;
}

const EXCHANGES = ["AllReduce", "AllGather", "ReduceScatter", "AllToAll", "Shift"];

export function exchangesOf(step: StepGraph, strategy: Strategy, sizes: Sizes): Exchanged[] {
  const { graph } = passOf(strategy.rewrite(step, createMesh(sizes)));
  return graph.nodes.flatMap(({ op, inputs, outputs }) => {
    const name = op.replace("lockstep::", "");
    if (!EXCHANGES.includes(name)) return [];
    const counts = [inputs[0], outputs[0]].map((value) =>
      elementCount(typeOf(graph, value ?? "").shape),
    );
    return [{ op: name, elements: Math.max(...counts) }];
  });
}
