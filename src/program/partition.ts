/**
 * Cuts the graph of a rank at its collectives: segments are pure graphs for an engine, between them lie the collectives.
 * A segment is cut no later than the first collective that needs it, and no earlier than the last it waits for.
 */
import { assert, LockstepError } from "../errors.ts";
import { type Graph, type Node, typeOf, validateGraph } from "../graph/index.ts";
import { isCollective } from "../ops/index.ts";
import { byteLength, type TensorType } from "../tensor/index.ts";

interface TaskBase {
  readonly name: string;
  /** Indices of tasks that must be done first. All are smaller than this task's own. */
  readonly after: readonly number[];
  /** Values of the rank's graph; constants are not among them. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

export interface SegmentTask extends TaskBase {
  readonly kind: "segment";
  readonly graph: Graph;
}

export interface CollectiveTask extends TaskBase {
  readonly kind: "collective";
  readonly node: Node;
  readonly axis: string;
  /** Of the inputs; of the outputs where there is no input. */
  readonly bytes: number;
}

export type Task = SegmentTask | CollectiveTask;

export interface RankProgram {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly types: ReadonlyMap<string, TensorType>;
  /** In an order in which they could run one after the other; all ranks have their collectives in one order. */
  readonly tasks: readonly Task[];
}

/** Nodes of one segment, and the collectives they lie between (indices; Infinity: none). */
interface Piece {
  readonly needed: number;
  readonly waits: number;
  readonly nodes: Node[];
}

/** @throws INVALID_GRAPH where an output is an input or a constant: nothing would make it */
export function partitionGraph(graph: Graph): RankProgram {
  const pieces = cutNodes(graph);
  const drafts: { readonly order: readonly [number, number]; readonly nodes: readonly Node[] }[] =
    pieces.map(({ needed, waits, nodes }) => ({ order: [needed, waits], nodes }));
  for (const [index, node] of collectivesOf(graph).entries()) {
    drafts.push({ order: [index, Infinity], nodes: [node] });
  }
  drafts.sort((a, b) => a.order[0] - b.order[0] || a.order[1] - b.order[1] || 0);
  const madeBy = new Map<string, number>();
  for (const [index, { nodes }] of drafts.entries()) {
    for (const output of nodes.flatMap(({ outputs }) => outputs)) madeBy.set(output, index);
  }
  for (const output of graph.outputs) {
    if (madeBy.has(output)) continue;
    throw new LockstepError(
      "INVALID_GRAPH",
      `Graph "${graph.name}": its output "${output}" is made by no node.`,
    );
  }
  let segments = 0;
  const tasks = drafts.map(({ nodes }, index): Task => {
    const [first] = nodes;
    assert(first !== undefined, "a task has a node");
    const inputs = inputsOf(graph, nodes);
    const after = new Set(inputs.flatMap((name) => madeBy.get(name) ?? []));
    const base = { inputs, after: [...after].sort((a, b) => a - b) };
    assert(!after.has(index) && base.after.every((at) => at < index), "tasks are in order");
    if (isCollective(first.op)) return collectiveTask(graph, first, base);
    return segmentTask(graph, `segment ${segments++}`, nodes, base);
  });
  const { name, inputs, outputs, types } = graph;
  return { name, inputs, outputs, types, tasks };
}

function collectivesOf(graph: Graph): Node[] {
  return graph.nodes.filter(({ op }) => isCollective(op));
}

/** Pure nodes, by the last collective that they wait for and the first that needs them. */
function cutNodes(graph: Graph): Piece[] {
  const order = new Map(collectivesOf(graph).map((node, index) => [node.name, index]));
  const waits = new Map<string, number>(); // by value: the last collective before it, or -1
  const waitsOf = ({ inputs }: Node) =>
    Math.max(-1, ...inputs.map((name) => waits.get(name) ?? -1));
  for (const node of graph.nodes) {
    const last = order.get(node.name) ?? waitsOf(node);
    for (const output of node.outputs) waits.set(output, last);
  }
  const needed = new Map<string, number>(); // by value: the first collective that it reaches
  const neededBy = ({ outputs }: Node) =>
    Math.min(Infinity, ...outputs.map((name) => needed.get(name) ?? Infinity));
  const pieces = new Map<string, Piece>();
  for (const node of graph.nodes.toReversed()) {
    const own = order.get(node.name);
    const first = Math.min(own ?? Infinity, neededBy(node));
    for (const input of node.inputs) {
      needed.set(input, Math.min(first, needed.get(input) ?? Infinity));
    }
    if (own !== undefined) continue;
    const last = waitsOf(node);
    const piece = pieces.get(`${first} ${last}`) ?? { needed: first, waits: last, nodes: [] };
    pieces.set(`${first} ${last}`, piece);
    piece.nodes.push(node);
  }
  for (const { nodes } of pieces.values()) nodes.reverse();
  return [...pieces.values()];
}

/** What a task takes from outside, in the order of first use. */
function inputsOf(graph: Graph, nodes: readonly Node[]): string[] {
  const own = new Set(nodes.flatMap(({ outputs }) => outputs));
  const inputs = nodes
    .flatMap((node) => node.inputs)
    .filter((name) => name !== "" && !own.has(name) && !graph.constants.has(name));
  return [...new Set(inputs)];
}

function collectiveTask(
  graph: Graph,
  node: Node,
  base: Pick<TaskBase, "inputs" | "after">,
): CollectiveTask {
  const axis = node.attributes["axis"];
  assert(axis?.kind === "string", `${node.name} names its axis`);
  const outputs = node.outputs.filter((name) => name !== "");
  const moved = base.inputs.length > 0 ? base.inputs : outputs;
  const bytes = moved.reduce((sum, name) => sum + byteLength(typeOf(graph, name)), 0);
  return { kind: "collective", name: node.name, node, axis: axis.value, bytes, outputs, ...base };
}

function segmentTask(
  graph: Graph,
  name: string,
  nodes: readonly Node[],
  base: Pick<TaskBase, "inputs" | "after">,
): SegmentTask {
  const own = new Set(nodes);
  const elsewhere = new Set(graph.outputs);
  for (const node of graph.nodes) {
    if (!own.has(node)) for (const input of node.inputs) elsewhere.add(input);
  }
  const made = nodes.flatMap(({ outputs }) => outputs).filter((output) => output !== "");
  const outputs = made.filter((output) => elsewhere.has(output));
  const used = new Set(nodes.flatMap(({ inputs }) => inputs));
  const constants = new Map([...graph.constants].filter(([constant]) => used.has(constant)));
  const values = [...base.inputs, ...constants.keys(), ...made];
  const types = new Map(values.map((value) => [value, typeOf(graph, value)]));
  const part = validateGraph({
    name: `${graph.name}/${name}`,
    inputs: base.inputs,
    outputs,
    nodes,
    constants,
    types,
  });
  return { kind: "segment", name, graph: part, outputs, ...base };
}
