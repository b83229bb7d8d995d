/**
 * The graph that each rank of an axis runs, from the graph of whole tensors and a division of each
 * node. It is the same on all ranks.
 */
import { assert } from "../../errors.ts";
import { type Division, type Graph, type Node, typeOf, type Value } from "../../graph/index.ts";
import { type AxisPlacement, isSamePlacement, shapeOnAxis } from "../../mesh/index.ts";
import { addLocalNode, builderLike, type DividedOver } from "../../ops/index.ts";
import { convert, effortOf, stepsBetween } from "./convert.ts";

/** How the ranks of an axis divide a graph. Undefined placements are replicated. */
export interface GraphDivision {
  readonly over: DividedOver;
  readonly nodes: ReadonlyMap<Node, Division>;
  readonly inputs: ReadonlyMap<string, AxisPlacement | undefined>;
  /** Values of which every rank makes the whole where it needs it, and the nodes that make them. */
  readonly views: ReadonlyMap<string, Node>;
  /** How the outputs are to be held. */
  readonly outputs: ReadonlyMap<string, AxisPlacement | undefined>;
}

/** A value as it is there. */
interface Held {
  readonly value: Value;
  readonly on: AxisPlacement | undefined;
}

/** Inputs keep their names, and outputs their order. */
export function localize(graph: Graph, division: GraphDivision): Graph {
  const { over } = division;
  const builder = builderLike(graph);
  const held = new Map<string, Held[]>();
  for (const name of graph.inputs) {
    const { dtype, shape } = typeOf(graph, name);
    const on = division.inputs.get(name);
    const value = builder.input(name, { dtype, shape: shapeOnAxis(shape, on, over.ranks) });
    held.set(name, [{ value, on }]);
  }
  for (const [name, tensor] of graph.constants) {
    held.set(name, [{ value: builder.namedConstant(name, tensor), on: undefined }]);
  }
  const placed = (name: string, to: AxisPlacement | undefined): Value => {
    const there = held.get(name) ?? [];
    const [least, ...others] = there;
    assert(least !== undefined, `"${name}" is made before it is read`);
    const effort = ({ on }: Held) => effortOf(stepsBetween(on, to));
    const from = others.reduce((best, own) => (effort(own) < effort(best) ? own : best), least);
    if (isSamePlacement(from.on, to)) return from.value;
    const value = builder.within(name, () => {
      const view = to === undefined ? division.views.get(name) : undefined;
      if (view === undefined) return convert(from.value, from.on, to, over);
      const inputs = view.inputs.map((own) => (own === "" ? undefined : placed(own, undefined)));
      const whole: Division = { inputs: inputs.map(() => undefined), outputs: [undefined] };
      return addLocalNode(builder, graph, view, { division: whole, inputs, over })[0] as Value;
    });
    there.push({ value, on: to });
    return value;
  };
  for (const node of graph.nodes) {
    const own = division.nodes.get(node);
    assert(own !== undefined, `"${node.name}" has a division`);
    const inputs = node.inputs.map((name, index) =>
      name === "" ? undefined : placed(name, own.inputs[index]),
    );
    const made = builder.within(node.name, () =>
      addLocalNode(builder, graph, node, { division: own, inputs, over }),
    );
    for (const [index, name] of node.outputs.entries()) {
      if (name === "") continue;
      held.set(name, [{ value: made[index] as Value, on: own.outputs[index] }]);
    }
  }
  const outputs = new Set<Value>();
  for (const name of graph.outputs) {
    const value = placed(name, division.outputs.get(name));
    const isOwn = builder.makerOf(value) !== undefined && !outputs.has(value);
    outputs.add(isOwn ? value : builder.one("Identity", [value]));
  }
  return builder.build([...outputs]);
}
