/**
 * Cuts a computation of the step into pieces that run one after the other, so that other tasks can
 * begin between them.
 */
import { type Graph, type Node, typeOf, validateGraph } from "../graph/index.ts";
import {
  type ComputeTask,
  MICRO_BATCH,
  type StepGraph,
  type StepValue,
  valueName,
} from "./step-graph.ts";

export interface Cut {
  /** The step in which the pieces replace the task. */
  readonly step: StepGraph;
  readonly pieces: readonly ComputeTask[];
  /** The number that each piece was given; those of pieces without a node are missing. */
  readonly numbers: readonly number[];
}

/**
 * Cuts a task of micro-batches at the points where lists of its outputs are ready. Piece k computes
 * what the outputs of list k need and no earlier piece has made; the last piece also computes what
 * no list contains. There are fewer pieces than lists if a list needs nothing new.
 */
export function cutWhereReady(
  step: StepGraph,
  task: ComputeTask,
  lists: readonly (readonly string[])[],
): Cut {
  const graph = step.graphs.get(task.graph) as Graph;
  const last = Math.max(0, lists.length - 1);
  const neededBy = new Map<string, number>();
  for (const [index, output] of graph.outputs.entries()) {
    const at = lists.findIndex((names) => names.includes(task.outputs[index] as string));
    if (at >= 0) neededBy.set(output, at);
  }
  const pieces = new Map<Node, number>();
  for (const node of graph.nodes.toReversed()) {
    const piece = Math.min(last, ...node.outputs.map((name) => neededBy.get(name) ?? last));
    for (const input of node.inputs) {
      neededBy.set(input, Math.min(piece, neededBy.get(input) ?? piece));
    }
    pieces.set(node, piece);
  }
  return cutTask(step, task, (node) => pieces.get(node) as number);
}

/**
 * Cuts a task of micro-batches. Each node of its graph is assigned to a piece, and never to an
 * earlier piece than the nodes that it reads. A value that crosses a cut becomes an activation.
 * Pieces without a node are omitted.
 */
export function cutTask(
  step: StepGraph,
  task: ComputeTask,
  pieceOf: (node: Node, index: number) => number,
): Cut {
  const graph = step.graphs.get(task.graph) as Graph;
  const bound = new Map<string, string>([
    ...graph.inputs.map((name, index) => [name, task.inputs[index] as string] as const),
    ...graph.outputs.map((name, index) => [name, task.outputs[index] as string] as const),
  ]);
  const values = new Map(step.values);
  const graphs = new Map(step.graphs);
  const valueFor = (name: string): string => {
    const known = bound.get(name);
    if (known !== undefined) return known;
    const made = valueName("activation", name);
    const placement = { [MICRO_BATCH]: { shard: 0 } } as const;
    const value: StepValue = { role: "activation", of: name, type: typeOf(graph, name), placement };
    values.set(made, value);
    bound.set(name, made);
    return made;
  };
  const lists: Node[][] = [];
  for (const [index, node] of graph.nodes.entries()) {
    const piece = pieceOf(node, index);
    const list = lists[piece] ?? [];
    lists[piece] = list;
    list.push(node);
  }
  const numbers = [...lists.keys()].filter((piece) => lists[piece] !== undefined);
  const full = numbers.map((piece) => lists[piece] as Node[]);
  const crossing = crossingValues(graph, full);
  const pieces = full.map((own, index): ComputeTask => {
    const piece = pieceGraph(graph, own, crossing, `${task.graph}, piece ${index}`);
    graphs.set(piece.name, piece);
    return {
      ...task,
      name: `${task.name}, piece ${index}`,
      graph: piece.name,
      inputs: piece.inputs.map(valueFor),
      outputs: piece.outputs.map(valueFor),
    };
  });
  const tasks = step.tasks.flatMap((other) => (other === task ? pieces : [other]));
  return { step: { ...step, values, graphs, tasks }, pieces, numbers };
}

/** The outputs of the graph, and the values that one piece makes and another reads. */
function crossingValues(graph: Graph, pieces: readonly (readonly Node[])[]): ReadonlySet<string> {
  const makers = new Map<string, number>();
  for (const [piece, nodes] of pieces.entries()) {
    for (const { outputs } of nodes) for (const output of outputs) makers.set(output, piece);
  }
  const crossing = new Set(graph.outputs);
  for (const [piece, nodes] of pieces.entries()) {
    for (const { inputs } of nodes) {
      for (const input of inputs) {
        const maker = makers.get(input);
        if (maker !== undefined && maker !== piece) crossing.add(input);
      }
    }
  }
  return crossing;
}

function pieceGraph(
  graph: Graph,
  nodes: readonly Node[],
  crossing: ReadonlySet<string>,
  name: string,
): Graph {
  const made = new Set(nodes.flatMap(({ outputs }) => outputs).filter((output) => output !== ""));
  const read = new Set(nodes.flatMap(({ inputs }) => inputs).filter((input) => input !== ""));
  const inputs = [...read].filter((input) => !made.has(input) && !graph.constants.has(input));
  const constants = new Map(
    [...read].flatMap((input) => {
      const constant = graph.constants.get(input);
      return constant === undefined ? [] : [[input, constant] as const];
    }),
  );
  const values = [...inputs, ...constants.keys(), ...made];
  return validateGraph({
    name,
    inputs,
    outputs: [...made].filter((output) => crossing.has(output)),
    nodes,
    constants,
    types: new Map(values.map((value) => [value, typeOf(graph, value)])),
  });
}

/** The names of a task's outputs in the order in which its graph makes them. */
export function inOrderMade(step: StepGraph, task: ComputeTask): string[] {
  const graph = step.graphs.get(task.graph) as Graph;
  const madeAt = new Map(
    graph.nodes.flatMap(({ outputs }, index) => outputs.map((output) => [output, index] as const)),
  );
  const at = (index: number) => madeAt.get(graph.outputs[index] as string) ?? -1;
  const order = [...task.outputs.keys()].sort((a, b) => at(a) - at(b));
  return order.map((index) => task.outputs[index] as string);
}
