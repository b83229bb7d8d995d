/** A raw graph while its weights are restored: reads get other names, weights are added, nodes are put before all others. */
import type { Tensor } from "../../tensor/index.ts";
import { toRawTensor } from "../encode.ts";
import { ATTRIBUTE_TYPES, type RawAttribute, type RawGraph, type RawNode } from "../schema.ts";
import type { Read } from "./weights.ts";

export class GraphEdit {
  readonly #graph: RawGraph;
  readonly #nodes: RawNode[];
  readonly #before: RawNode[] = [];
  readonly #added = new Map<string, Tensor>();
  /** Initializers that take the name of another weight, and what they were called. */
  readonly #renamed = new Map<string, string>();
  readonly #taken: Set<string>;

  constructor(graph: RawGraph) {
    this.#graph = graph;
    this.#nodes = graph.node.map((node) => ({ ...node, input: [...node.input] }));
    this.#taken = new Set([
      ...graph.input.map(({ name }) => name),
      ...graph.node.flatMap(({ output }) => output),
    ]);
  }

  /** As they are now, without those that were put before them. */
  get nodes(): RawNode[] {
    return this.#nodes;
  }

  /** Lets a node read another value. */
  redirect({ node, input }: Read, name: string): void {
    const inputs = this.#nodes[node]?.input;
    if (inputs === undefined) return;
    while (inputs.length < input) inputs.push("");
    inputs[input] = name;
  }

  /** The initializer `given` under a name of its own, beside others with the same values. */
  copy(given: string, name: string): void {
    this.#renamed.set(name, given);
  }

  add(name: string, tensor: Tensor): void {
    this.#added.set(name, tensor);
  }

  /** A node before all others; returns the name of its output. */
  prepend(
    opType: string,
    inputs: readonly string[],
    label: string,
    attributes: Readonly<Record<string, number | readonly number[]>> = {},
  ): string {
    let output = label;
    for (let count = 1; this.#taken.has(output); count++) output = `${label}_${count}`;
    this.#taken.add(output);
    this.#before.push({
      name: output,
      opType,
      domain: "",
      overload: "",
      docString: "",
      input: [...inputs],
      output: [output],
      attribute: Object.entries(attributes).map(([name, value]) => rawAttribute(name, value)),
      metadataProps: [],
    });
    return output;
  }

  /** The graph as it is now; initializers that nothing reads any more are gone. */
  result(): RawGraph {
    // An Identity whose output is a weight of its own now.
    const nodes = this.#nodes.filter(({ output }) => !this.#renamed.has(output[0] ?? ""));
    const node = [...this.#before, ...nodes];
    const read = new Set(node.flatMap(({ input }) => input));
    for (const { name } of this.#graph.output) read.add(name);
    // Branches read initializers of the graph around them.
    const nested = node.some(({ attribute }) => attribute.some(({ g }) => g !== undefined));
    // In the order of the file: each initializer under its new names, then under its own if that is still read.
    const initializer = this.#graph.initializer.flatMap((raw) => {
      const names = [...this.#renamed].filter(([, given]) => given === raw.name);
      const isOwn = !this.#renamed.has(raw.name) && (nested || read.has(raw.name));
      return [...names.map(([name]) => ({ ...raw, name })), ...(isOwn ? [raw] : [])];
    });
    const added = [...this.#added].map(([name, tensor]) => toRawTensor(name, tensor));
    return { ...this.#graph, node, initializer: [...initializer, ...added] };
  }
}

function rawAttribute(name: string, value: number | readonly number[]): RawAttribute {
  const isList = typeof value !== "number";
  return {
    name,
    type: isList ? ATTRIBUTE_TYPES.ints : ATTRIBUTE_TYPES.int,
    refAttrName: "",
    f: undefined,
    i: isList ? undefined : value,
    s: undefined,
    t: undefined,
    g: undefined,
    floats: [],
    ints: isList ? [...value] : [],
    strings: [],
    tensors: [],
    graphs: [],
  };
}
