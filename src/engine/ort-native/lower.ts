/**
 * Prepares a graph for compilation by ONNX Runtime: the same computation, within the limits of the
 * library.
 */
import type { Graph } from "../../graph/index.ts";
import type { Tensor } from "../../tensor/index.ts";

/** If all constants together have more bytes than this, they are not written into the model. */
const MAX_EMBEDDED_BYTES = 256 * 2 ** 20;
/**
 * Constants smaller than this always are, because kernels may need to know them (shapes, scales).
 */
const MIN_LIFTED_BYTES = 2 ** 20;

export interface LoweredGraph {
  /** The graph; its last inputs are the lifted constants. */
  readonly graph: Graph;
  /**
   * Large constants, which are passed to each execution in place: a model is at most 2 GiB, and the
   * library copies it.
   */
  readonly lifted: readonly Tensor[];
}

export function lowerGraph(graph: Graph, maxEmbeddedBytes = MAX_EMBEDDED_BYTES): LoweredGraph {
  return liftConstants(withDistinctOutputs(withoutDetach(graph)), maxEmbeddedBytes);
}

/** A Detach only matters for gradients; for execution it is a copy. */
function withoutDetach(graph: Graph): Graph {
  if (!graph.nodes.some(({ op }) => op === "lockstep::Detach")) return graph;
  const nodes = graph.nodes.map((node) =>
    node.op === "lockstep::Detach"
      ? { ...node, op: "Identity", inputs: node.inputs.slice(0, 1) }
      : node,
  );
  return { ...graph, nodes };
}

/**
 * ONNX Runtime requires each output to be made by a node, under one name only: other outputs get an
 * Identity.
 */
function withDistinctOutputs(graph: Graph): Graph {
  const made = new Set(graph.nodes.flatMap((node) => node.outputs));
  const seen = new Set<string>();
  const types = new Map(graph.types);
  const nodes = [...graph.nodes];
  const outputs = graph.outputs.map((output, index) => {
    if (made.has(output) && !seen.has(output)) {
      seen.add(output);
      return output;
    }
    let name = `${output}/output_${index}`;
    while (types.has(name)) name += "_";
    const type = graph.types.get(output);
    if (type !== undefined) types.set(name, type);
    nodes.push({ op: "Identity", name, inputs: [output], outputs: [name], attributes: {} });
    return name;
  });
  return nodes.length === graph.nodes.length ? graph : { ...graph, outputs, nodes, types };
}

function liftConstants(graph: Graph, maxEmbeddedBytes: number): LoweredGraph {
  let total = 0;
  for (const { bytes } of graph.constants.values()) total += bytes.byteLength;
  if (total <= maxEmbeddedBytes) return { graph, lifted: [] };
  const large = [...graph.constants].filter(
    ([, { bytes }]) => bytes.byteLength >= MIN_LIFTED_BYTES,
  );
  const constants = new Map(graph.constants);
  for (const [name] of large) constants.delete(name);
  const inputs = [...graph.inputs, ...large.map(([name]) => name)];
  return { graph: { ...graph, inputs, constants }, lifted: large.map(([, tensor]) => tensor) };
}
