/**
 * Finds the blocks of a forward and backward pass: the forward nodes of a unit of parameters (or of
 * a few small units), and the backward nodes that belong to them. A pass in pieces runs its blocks
 * forward, turns round within the last one, and runs them backward.
 */
import { type Graph, type Node, reach, typeOf } from "../graph/index.ts";
import { byteLength } from "../tensor/index.ts";
import { unitsOf } from "./phases.ts";
import { type ComputeTask, type StepGraph, valueOf } from "./step-graph.ts";

export interface Blocks {
  readonly count: number;
  /**
   * The piece of each node. Block b runs forward in piece b, and backward in piece `backwardOf(b)`.
   */
  readonly pieceOf: ReadonlyMap<Node, number>;
  /** The block of each value that a forward node makes. */
  readonly blockOf: ReadonlyMap<string, number>;
  /** The values that another block's forward part reads. */
  readonly boundary: ReadonlySet<string>;
}

/**
 * Returns the piece in which a block runs backward. Forward and backward of the last block are one
 * piece.
 */
export function backwardOf(count: number, block: number): number {
  return 2 * (count - 1) - block;
}

interface Candidate {
  readonly units: Set<string>;
  readonly nodes: Node[];
  /** The bytes of its parameters, and of the values that its nodes make. */
  parameters: number;
  made: number;
}

export function blocksOf(step: StepGraph, task: ComputeTask): Blocks {
  const graph = step.graphs.get(task.graph) as Graph;
  const { unitBy, bytesOf } = unitsOf(step, task);
  const forward = forwardNodes(step, task);
  const madeBy = (nodes: readonly Node[]) =>
    nodes
      .flatMap(({ outputs }) => outputs.filter((name) => name !== ""))
      .reduce((sum, name) => sum + byteLength(typeOf(graph, name)), 0);
  const candidates: Candidate[] = [{ units: new Set(), nodes: [], parameters: 0, made: 0 }];
  for (const node of forward) {
    const needed = node.inputs.flatMap((input) => unitBy.get(input) ?? []);
    const current = candidates.at(-1) as Candidate;
    const isNew = needed.some((unit) => !current.units.has(unit)) && current.units.size > 0;
    const into = isNew ? { units: new Set<string>(), nodes: [], parameters: 0, made: 0 } : current;
    if (isNew) candidates.push(into);
    for (const unit of needed) into.units.add(unit);
    into.nodes.push(node);
  }
  for (const candidate of candidates) {
    candidate.parameters = bytesOf(candidate.units);
    candidate.made = madeBy(candidate.nodes);
  }
  return blocksFrom(
    graph,
    merged(candidates).map(({ nodes }) => nodes),
    unitBy,
  );
}

/**
 * Places the nodes of a pass.
 * @param lists the forward nodes of each block
 * @param parameters has the inputs of the graph that are parameters
 */
export function blocksFrom(
  graph: Graph,
  lists: readonly (readonly Node[])[],
  parameters: { has(input: string): boolean },
): Blocks {
  const blockOf = new Map<string, number>();
  const pieceOf = new Map<Node, number>();
  const boundary = new Set<string>();
  for (const [block, nodes] of lists.entries()) {
    for (const node of nodes) {
      pieceOf.set(node, block);
      for (const input of node.inputs)
        if ((blockOf.get(input) ?? block) !== block) boundary.add(input);
      for (const output of node.outputs) if (output !== "") blockOf.set(output, block);
    }
  }
  const found = { count: lists.length, pieceOf, blockOf, boundary };
  placeBackward(graph, found, parameters);
  return found;
}

/** Merges neighbours that are small together, in parameters as in activations. */
function merged(candidates: readonly Candidate[]): Candidate[] {
  const most = (of: (one: Candidate) => number) => Math.max(...candidates.map(of));
  const [parameters, made] = [most((one) => one.parameters), most((one) => one.made)];
  const blocks: Candidate[] = [];
  for (const next of candidates) {
    const before = blocks.at(-1);
    const fits =
      before !== undefined &&
      before.parameters + next.parameters <= parameters &&
      before.made + next.made <= made;
    if (!fits) {
      blocks.push({ ...next, nodes: [...next.nodes] });
      continue;
    }
    before.nodes.push(...next.nodes);
    before.parameters += next.parameters;
    before.made += next.made;
  }
  return blocks;
}

/**
 * Returns the forward part of a pass: the nodes that the terms of the loss and the next states
 * need. What only gradients need is the backward part.
 */
export function forwardNodes(step: StepGraph, task: ComputeTask): Node[] {
  const graph = step.graphs.get(task.graph) as Graph;
  const isGradient = (index: number) =>
    valueOf(step, task.outputs[index] as string).role === "gradient";
  const outputs = graph.outputs.filter((_, index) => !isGradient(index));
  return reach(graph.nodes, outputs).nodes;
}

/**
 * Places backward nodes. A backward node belongs to the block whose parameters and inner
 * activations it reads, and comes after everything that it reads. A node that reads neither (only
 * boundaries and constants) belongs to its first reader.
 */
function placeBackward(
  graph: Graph,
  { count, blockOf, boundary, pieceOf }: Blocks & { readonly pieceOf: Map<Node, number> },
  parameters: { has(input: string): boolean },
): void {
  const backward = graph.nodes.filter((node) => !pieceOf.has(node));
  const pieceBy = new Map<string, number>();
  for (const [name, block] of blockOf) {
    if (!boundary.has(name)) pieceBy.set(name, backwardOf(count, block));
  }
  // A parameter that several blocks use is available with the last of them.
  for (const [node, block] of pieceOf) {
    for (const name of node.inputs)
      if (parameters.has(name)) pieceBy.set(name, backwardOf(count, block));
  }
  for (const node of backward) {
    const read = node.inputs.flatMap((name) => pieceBy.get(name) ?? []);
    if (read.length === 0) continue;
    pieceOf.set(node, Math.max(...read));
    for (const name of node.outputs) pieceBy.set(name, Math.max(...read));
  }
  const firstReader = new Map<string, number>();
  for (const node of backward.toReversed()) {
    const readers = node.outputs.flatMap((name) => firstReader.get(name) ?? []);
    const piece = pieceOf.get(node) ?? Math.min(backwardOf(count, 0), ...readers);
    pieceOf.set(node, piece);
    for (const name of node.inputs) {
      firstReader.set(name, Math.min(piece, firstReader.get(name) ?? piece));
    }
  }
}
