/**
 * The graph of one rank, from one that is the same on all ranks: what a rank does by its place on an
 * axis becomes ordinary nodes.
 */
import { expand } from "../functional/index.ts";
import { type Graph, type Node, readAttributes, typeOf, type Value } from "../graph/index.ts";
import { type Mesh, placeOnAxis } from "../mesh/index.ts";
import { builderLike, operators } from "../ops/index.ts";
import { scalar } from "../tensor/index.ts";
import { amongZeros, takePart } from "./dim-parts.ts";

const BY_PLACE = [
  "lockstep::AmongZeros",
  "lockstep::AxisPlace",
  "lockstep::OnFirst",
  "lockstep::OwnPart",
] as const;
type ByPlace = (typeof BY_PLACE)[number];

function isByPlace(op: string): op is ByPlace {
  return (BY_PLACE as readonly string[]).includes(op);
}

/** Inputs and outputs keep their names. */
export function ownGraph(graph: Graph, mesh: Mesh, rank: number): Graph {
  if (!graph.nodes.some(({ op }) => isByPlace(op))) return graph;
  const builder = builderLike(graph);
  const values = new Map<string, Value>();
  for (const name of graph.inputs) values.set(name, builder.input(name, typeOf(graph, name)));
  for (const [name, tensor] of graph.constants) {
    values.set(name, builder.namedConstant(name, tensor));
  }
  const outputs = new Set(graph.outputs);
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((name) => values.get(name));
    if (!isByPlace(node.op)) {
      const made = builder.append(node.op, node.name, inputs, node.attributes, node.outputs);
      for (const [index, name] of node.outputs.entries()) {
        if (name !== "") values.set(name, made[index] as Value);
      }
      continue;
    }
    const [name] = node.outputs as readonly [string];
    const made = builder.within(node.name, () => byPlace(node, node.op as ByPlace, inputs[0]));
    const isOutput = outputs.has(name);
    values.set(
      name,
      isOutput ? (builder.append("Identity", name, [made], {}, [name])[0] as Value) : made,
    );
  }
  return builder.build(graph.outputs.map((name) => values.get(name) as Value));

  function byPlace(node: Node, op: ByPlace, input: Value | undefined): Value {
    const attributes = readAttributes(operators[op], node.attributes, node.name);
    const place = placeOnAxis(mesh, attributes.string("axis"), rank);
    if (op === "lockstep::AxisPlace") return builder.constant(scalar("int64", place));
    const value = input as Value;
    if (op === "lockstep::OnFirst") {
      return place === 0 ? value : expand(builder.scalar(value.dtype, 0), value.shape);
    }
    const sections = attributes.has("sections") ? attributes.numbers("sections") : undefined;
    const on = { shard: attributes.number("dim"), ...(sections && { sections }) };
    const ranks = attributes.number("ranks");
    if (op === "lockstep::OwnPart") return takePart(value, on, place, ranks);
    return amongZeros(value, on, place, ranks);
  }
}
