/** What searches for ways to divide the same graph share: its nodes, its values, what divisions cost. */
import type { Division, Graph, Node } from "../../graph/index.ts";
import { type DividedOver, divisionsOf, flopsOfNode } from "../../ops/index.ts";
import { type RankSpeed, secondsOfNode } from "./costs.ts";
import { Values } from "./values.ts";

/** A division of a node. */
export interface DividedNode {
  readonly division: Division;
  /** Of a rank, to compute its part. */
  readonly seconds: number;
}

export class Work {
  readonly graph: Graph;
  readonly speed: RankSpeed;
  /** In the order in which they are decided. */
  readonly nodes: readonly Node[];
  readonly values: Values;
  readonly #divisions = new Map<Node, Map<string, readonly DividedNode[]>>();
  readonly #flops = new Map<Node, number>();

  constructor(graph: Graph, speed: RankSpeed) {
    this.graph = graph;
    this.speed = speed;
    this.nodes = justInTime(graph);
    this.values = new Values(graph, this.nodes);
  }

  /** All ways to divide a node; the first one divides nothing. */
  divisionsOf(node: Node, over: DividedOver): readonly DividedNode[] {
    const ofNode = this.#divisions.get(node) ?? new Map<string, readonly DividedNode[]>();
    this.#divisions.set(node, ofNode);
    const key = `${over.axis} ${over.ranks} ${over.proportions.map((own) => own.join()).join(" ")}`;
    const known = ofNode.get(key);
    if (known !== undefined) return known;
    const found = divisionsOf(this.graph, node, over).map((division): DividedNode => {
      const seconds = secondsOfNode(this.graph, node, division, over.ranks, this.speed);
      return { division, seconds };
    });
    ofNode.set(key, found);
    return found;
  }

  flopsOf(node: Node): number {
    const flops = this.#flops.get(node) ?? flopsOfNode(this.graph, node);
    this.#flops.set(node, flops);
    return flops;
  }
}

/** The nodes of a graph, each just before the first one that needs it. */
function justInTime({ nodes, outputs }: Graph): readonly Node[] {
  const made = new Set(outputs);
  const needed = new Map<string, number>();
  const place = new Map<Node, number>();
  for (const [index, node] of [...nodes.entries()].reverse()) {
    const first = Math.min(...node.outputs.map((name) => needed.get(name) ?? index));
    const at = node.outputs.some((name) => made.has(name)) ? Math.min(index, first) : first;
    place.set(node, at - 1e-6);
    for (const name of node.inputs) needed.set(name, Math.min(at - 1e-6, needed.get(name) ?? at));
  }
  const order = new Map(nodes.map((node, index) => [node, index]));
  const at = (node: Node) => place.get(node) as number;
  return nodes.toSorted((a, b) => at(a) - at(b) || (order.get(a) ?? 0) - (order.get(b) ?? 0));
}
