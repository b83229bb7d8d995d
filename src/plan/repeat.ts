/**
 * Cuts a computation of the step into pieces, some of which begin by computing nodes of earlier
 * pieces again.
 */
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { type Cut, cutTask } from "./cut.ts";
import type { ComputeTask, StepGraph } from "./step-graph.ts";

export interface Repetition {
  readonly piece: number;
  /**
   * The nodes in the order of the graph. Their results have other names in this piece, and stay
   * inside it.
   */
  readonly nodes: readonly Node[];
}

/**
 * @param pieceOf the piece of each node of the task's graph; no node is in an earlier piece than
 * the nodes that it reads
 */
export function cutRepeating(
  step: StepGraph,
  task: ComputeTask,
  pieceOf: ReadonlyMap<Node, number>,
  repetitions: readonly Repetition[],
): Cut {
  const graph = step.graphs.get(task.graph) as Graph;
  const types = new Map(graph.types);
  const pieces: Node[][] = [];
  const place = (node: Node, piece: number) => {
    const nodes = pieces[piece] ?? [];
    pieces[piece] = nodes;
    nodes.push(node);
  };
  const namesIn = new Map<number, ReadonlyMap<string, string>>();
  const renamed = (names: ReadonlyMap<string, string> | undefined, list: readonly string[]) =>
    names === undefined ? list : list.map((name) => names.get(name) ?? name);
  for (const { piece, nodes } of repetitions) {
    const names = new Map<string, string>();
    for (const name of nodes.flatMap(({ outputs }) => outputs)) {
      if (name === "") continue;
      let other = `${name}/again`;
      while (types.has(other)) other += "_";
      types.set(other, typeOf(graph, name));
      names.set(name, other);
    }
    namesIn.set(piece, names);
    for (const node of nodes) {
      const [inputs, outputs] = [renamed(names, node.inputs), renamed(names, node.outputs)];
      place({ ...node, name: `${node.name}/again`, inputs, outputs }, piece);
    }
  }
  for (const node of graph.nodes) {
    const piece = pieceOf.get(node) as number;
    place({ ...node, inputs: renamed(namesIn.get(piece), node.inputs) }, piece);
  }
  const name = `${task.graph}, nodes repeated`;
  const whole: ComputeTask = { ...task, graph: name };
  const tasks = step.tasks.map((other) => (other === task ? whole : other));
  const nodes = pieces.flat();
  const graphs = new Map(step.graphs).set(name, { ...graph, name, nodes, types });
  const pieceBy = new Map(
    pieces.flatMap((own, piece) => own.map((node) => [node, piece] as const)),
  );
  const cut = cutTask({ ...step, graphs, tasks }, whole, (node) => pieceBy.get(node) as number);
  const kept = new Map(cut.step.graphs);
  kept.delete(name);
  return { ...cut, step: { ...cut.step, graphs: kept } };
}
