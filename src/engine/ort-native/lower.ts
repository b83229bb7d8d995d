/** What a graph becomes before ONNX Runtime compiles it: the same computation, within what the library takes. */
import type { Graph } from "../../graph/index.ts";
import type { Tensor } from "../../tensor/index.ts";

/** Constants of more bytes than this, all together, are not written into the model. */
const MAX_EMBEDDED_BYTES = 256 * 2 ** 20;
/** The smaller ones are, for kernels may want to know them (shapes, scales). */
const MIN_LIFTED_BYTES = 2 ** 20;

export interface LoweredGraph {
  /** Its last inputs are the lifted constants. */
  readonly graph: Graph;
  /** Large constants, given to each run where they lie: a model is at most 2 GiB, and the library copies it. */
  readonly lifted: readonly Tensor[];
}

export function lowerGraph(graph: Graph, maxEmbeddedBytes = MAX_EMBEDDED_BYTES): LoweredGraph {
  return liftConstants(withDistinctOutputs(withoutDetach(graph)), maxEmbeddedBytes);
}

/** What no gradient goes through is a copy to those who only run. */
function withoutDetach(graph: Graph): Graph {
  if (!graph.nodes.some(({ op }) => op === "lockstep::Detach")) return graph;
  const nodes = graph.nodes.map((node) =>
    node.op === "lockstep::Detach"
      ? { ...node, op: "Identity", inputs: node.inputs.slice(0, 1) }
      : node,
  );
  return { ...graph, nodes };
}

/** ONNX Runtime wants outputs that nodes make, each under one name: others get an Identity. */
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
