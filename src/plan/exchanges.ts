/**
 * Cuts a pass at the operators of all ranks of an axis: pieces that a rank computes alone, and
 * between them exchanges.
 */
import { type Graph, type Node, readAttributes, typeOf, validateGraph } from "../graph/index.ts";
import type { AxisPlacement, Shard } from "../mesh/index.ts";
import { flopsOfNode, operators } from "../ops/index.ts";
import { byteLength } from "../tensor/index.ts";
import { cutTask } from "./cut.ts";
import { isPiece } from "./pass.ts";
import type { ComputeTask, ExchangeTask, StepGraph, StepTask } from "./step-graph.ts";

const EXCHANGES = [
  "lockstep::AllGather",
  "lockstep::AllReduce",
  "lockstep::AllToAll",
  "lockstep::ReduceScatter",
  "lockstep::Shift",
] as const;

type ExchangeOp = (typeof EXCHANGES)[number];

function isExchangeOp(op: string): boolean {
  return (EXCHANGES as readonly string[]).includes(op);
}

function isExchange({ op }: Node): boolean {
  return isExchangeOp(op);
}

/** Whether a pass has exchanges, or will have them when it is cut. */
export function hasExchanges({ tasks, graphs }: StepGraph): boolean {
  return tasks.some(
    (task) =>
      task.kind === "exchange" ||
      (isPiece(task) && graphs.get(task.graph)?.nodes.some(isExchange) === true),
  );
}

/** Each piece of the pass that has exchanges is cut there. Others stay. */
export function cutAtExchanges(step: StepGraph): StepGraph {
  return step.tasks.filter(isPiece).reduce((current, piece) => {
    const graph = current.graphs.get(piece.graph) as Graph;
    if (!graph.nodes.some(isExchange)) return current;
    const own = withOwnInputs(graph);
    const graphs = new Map(current.graphs).set(piece.graph, own);
    return cutPiece({ ...current, graphs }, piece, own);
  }, step);
}

/**
 * What is exchanged lies in a buffer that is soon used again: a value that has other readers, or lies
 * elsewhere, is copied first.
 */
function withOwnInputs(graph: Graph): Graph {
  const readers = new Map<string, number>();
  for (const { inputs } of graph.nodes) {
    for (const name of inputs) readers.set(name, (readers.get(name) ?? 0) + 1);
  }
  for (const name of graph.outputs) readers.set(name, (readers.get(name) ?? 0) + 1);
  const made = new Set(graph.nodes.flatMap(({ op, outputs }) => (isExchangeOp(op) ? [] : outputs)));
  const types = new Map(graph.types);
  const nodes = graph.nodes.flatMap((node): Node[] => {
    const [input = ""] = node.inputs;
    if (!isExchange(node) || (made.has(input) && readers.get(input) === 1)) return [node];
    const given = `${node.name}/given`;
    types.set(given, typeOf(graph, input));
    const copy = { op: "Identity", name: given, inputs: [input], outputs: [given], attributes: {} };
    return [copy, { ...node, inputs: [given] }];
  });
  return validateGraph({ ...graph, nodes, types });
}

/**
 * What an exchange needs comes in pieces before it, and what needs its result behind it. Exchanges
 * that wait for the same piece are one task for each axis.
 */
function cutPiece(step: StepGraph, piece: ComputeTask, graph: Graph): StepGraph {
  const level = new Map<string, number>();
  const pieceOf = new Map<Node, number>();
  for (const node of graph.nodes) {
    // Pieces have even numbers, and what is exchanged behind them odd ones.
    const ready = Math.max(0, ...node.inputs.map((name) => level.get(name) ?? 0));
    pieceOf.set(node, isExchange(node) ? ready + 1 : ready);
    for (const name of node.outputs) level.set(name, isExchange(node) ? ready + 2 : ready);
  }
  putOff(graph, pieceOf);
  const cut = cutTask(step, piece, (node) => pieceOf.get(node) as number);
  const tasks = cut.step.tasks.flatMap((task): StepTask[] => {
    const own = cut.pieces.includes(task as ComputeTask) ? (task as ComputeTask) : undefined;
    const nodes = own && (cut.step.graphs.get(own.graph) as Graph).nodes;
    return own && nodes?.every(isExchange) ? exchangesOf(cut.step, own, nodes) : [task];
  });
  const kept = new Set(tasks.flatMap((task) => (task.kind === "compute" ? [task.graph] : [])));
  const made = new Set(cut.pieces.map((own) => own.graph));
  const graphs = new Map(
    [...cut.step.graphs].filter(([name]) => !made.has(name) || kept.has(name)),
  );
  return { ...cut.step, graphs, tasks };
}

/**
 * What computes nothing, such as slices, is made in the piece that reads it first, if what it is made
 * of is there then, or takes no more place until then than all that is made of it.
 */
function putOff(graph: Graph, pieceOf: Map<Node, number>): void {
  const made = new Set(graph.nodes.flatMap(({ outputs }) => outputs));
  const results = new Set(graph.outputs);
  const readers = new Map<string, Set<Node>>();
  for (const node of graph.nodes) {
    for (const name of node.inputs) {
      readers.set(name, (readers.get(name) ?? new Set()).add(node));
    }
  }
  const bytesOf = (names: Iterable<string>) =>
    [...new Set(names)].reduce((sum, name) => {
      return name === "" ? sum : sum + byteLength(typeOf(graph, name));
    }, 0);
  const readersOf = (name: string) => [...(readers.get(name) ?? [])];
  const placeOf = (node: Node) => (pieceOf.get(node) as number) - (isExchange(node) ? 1 : 0);
  const canWait = graph.nodes.filter(
    (node) =>
      !isExchange(node) &&
      !node.outputs.some((name) => results.has(name)) &&
      flopsOfNode(graph, node) === 0,
  );
  const waiting = new Set(canWait);
  const neededAt = (node: Node) => Math.min(...node.outputs.flatMap(readersOf).map(placeOf));
  const waits = (node: Node) => waiting.has(node) && neededAt(node) > placeOf(node);
  const isPutOff = (node: Node): boolean => {
    const needed = neededAt(node);
    if (!waits(node) || !Number.isFinite(needed)) return false;
    const kept = node.inputs.filter(
      (name) => made.has(name) && !readersOf(name).some((other) => placeOf(other) >= needed),
    );
    const alike = new Set([node, ...kept.flatMap(readersOf).filter(waits)]);
    if (bytesOf(kept) > bytesOf([...alike].flatMap(({ outputs }) => outputs))) return false;
    pieceOf.set(node, needed);
    return true;
  };
  // What is put off may be what others wait for.
  while (canWait.toReversed().filter(isPutOff).length > 0);
}

function exchangesOf(
  step: StepGraph,
  { name, inputs, outputs, graph, stage }: ComputeTask,
  nodes: readonly Node[],
): ExchangeTask[] {
  const own = step.graphs.get(graph) as Graph;
  const valueOf = (side: "inputs" | "outputs", of: string) => {
    const values = side === "inputs" ? inputs : outputs;
    return values[own[side].indexOf(of)] as string;
  };
  const tasks = new Map<string, ExchangeTask>();
  for (const node of nodes) {
    const { axis, from, to } = placementsOf(node);
    const isShifted = node.op === "lockstep::Shift";
    const before = tasks.get(axis) ?? {
      kind: "exchange",
      name: `${name}, over ${axis}`,
      each: "micro-batch",
      axis,
      from: [],
      to: [],
      inputs: [],
      outputs: [],
      ...(stage && { stage }),
    };
    tasks.set(axis, {
      ...before,
      from: [...before.from, from],
      to: [...before.to, to],
      ...(isShifted || before.shifted
        ? { shifted: [...(before.shifted ?? before.from.map(() => false)), isShifted] }
        : {}),
      inputs: [...before.inputs, valueOf("inputs", node.inputs[0] as string)],
      outputs: [...before.outputs, valueOf("outputs", node.outputs[0] as string)],
    });
  }
  return [...tasks.values()];
}

function placementsOf(node: Node) {
  const op = node.op as ExchangeOp;
  const attributes = readAttributes(operators[op], node.attributes, node.name);
  const shard = (prefix = ""): Shard => {
    const dim = attributes.number(`${prefix}dim`);
    const name = `${prefix}sections`;
    return attributes.has(name)
      ? { shard: dim, sections: attributes.numbers(name) }
      : { shard: dim };
  };
  const axis = attributes.string("axis");
  const of = (from: AxisPlacement, to: AxisPlacement | undefined) => ({ axis, from, to });
  switch (op) {
    case "lockstep::AllReduce":
      return of(attributes.string("kind") === "max" ? "partial max" : "partial", undefined);
    case "lockstep::AllGather":
      return of(shard(), undefined);
    case "lockstep::ReduceScatter":
      return of("partial", shard());
    case "lockstep::AllToAll":
      return of(shard(), shard("to_"));
    // A part of no dim: it stays one, and goes to another rank.
    case "lockstep::Shift":
      return of({ shard: "flat" }, { shard: "flat" });
  }
}
