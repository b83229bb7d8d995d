/**
 * Edits a raw graph while its weights are restored: redirects reads, adds weights, and puts nodes
 * before all others.
 */

import type { RawAttribute, RawGraph, RawNode } from "../onnx/index.ts";
import { toRawAttribute, toRawTensor } from "../onnx/index.ts";
import { type Tensor, tensorFrom } from "../tensor/index.ts";
import type { Read } from "./weights.ts";

export class GraphEdit {
  readonly #graph: RawGraph;
  readonly #nodes: RawNode[];
  readonly #before: RawNode[] = [];
  /** The added nodes, by the index of the node that they precede. */
  readonly #prior = new Map<number, RawNode[]>();
  /** The added nodes, by the index of the node that they follow. */
  readonly #after = new Map<number, RawNode[]>();
  readonly #added = new Map<string, Tensor>();
  /** Initializers that take the name of another weight, with their former names. */
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

  /** The nodes in their present form, without those that were put before them. */
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

  /**
   * Adds the initializer `given` again under another name, because other weights have the same
   * values.
   */
  copy(given: string, name: string): void {
    this.#renamed.set(name, given);
  }

  add(name: string, tensor: Tensor): void {
    this.#added.set(name, tensor);
  }

  /** Adds a node before all others and returns the name of its output. */
  prepend(
    opType: string,
    inputs: readonly string[],
    label: string,
    attributes: Readonly<Record<string, number | readonly number[]>> = {},
  ): string {
    const node = this.#node(opType, inputs, this.#fresh(label), attributes);
    this.#before.push(node);
    return node.name;
  }

  /**
   * Splits a value along its first dim into equal parts, before all nodes, and returns their names.
   */
  split(input: string, parts: number): string[] {
    const output = Array.from({ length: parts }, (_, index) =>
      this.#fresh(`${input}/part_${index}`),
    );
    const node = this.#node("Split", [input], `${input}/parts`, { axis: 0 });
    this.#before.push({ ...node, output });
    return output;
  }

  /**
   * Stops the gradient at output 0 of a node; with `only`, just at positions where its input
   * `index` is that number.
   */
  detach(node: number, only?: { readonly index: number; readonly equals: number }): void {
    const own = this.#nodes[node];
    const [output = ""] = own?.output ?? [];
    if (own === undefined || output === "") return;
    const raw = this.#fresh(`${output}/attached`);
    this.#nodes[node] = { ...own, output: [raw, ...own.output.slice(1)] };
    const added: RawNode[] = [];
    const mask: string[] = [];
    if (only !== undefined) {
      const ids = own.input[only.index] ?? "";
      const [number, axis] = [this.#fresh(`${output}/padding`), this.#fresh(`${output}/axis`)];
      this.add(number, tensorFrom("int64", [], [only.equals]));
      this.add(axis, tensorFrom("int64", [1], [-1]));
      const like = this.#node("CastLike", [number, ids], this.#fresh(`${number}_like`));
      const equal = this.#node("Equal", [ids, like.name], this.#fresh(`${output}/is_padding`));
      const wide = this.#node("Unsqueeze", [equal.name, axis], this.#fresh(`${equal.name}_row`));
      added.push(like, equal, wide);
      mask.push(wide.name);
    }
    const detached = this.#node("Detach", [raw, ...mask], output);
    added.push({ ...detached, name: `${output}/Detach`, domain: "lockstep" });
    this.#after.set(node, added);
  }

  /** Stops the gradient at an input of a node. */
  detachInput({ node, input }: Omit<Read, "initializer">): void {
    const own = this.#nodes[node]?.input[input];
    if (own === undefined) return;
    const detached = this.#node("Detach", [own], this.#fresh(`${own}/detached`));
    this.#prior.set(node, [...(this.#prior.get(node) ?? []), { ...detached, domain: "lockstep" }]);
    this.redirect({ node, input, initializer: own }, detached.name);
  }

  /** Makes a BatchNormalization use the statistics of the batch. */
  trainNormalization(node: number): void {
    const own = this.#nodes[node];
    if (own === undefined) return;
    const [output = ""] = own.output;
    this.#nodes[node] = {
      ...own,
      output: [output, this.#fresh(`${output}/mean`), this.#fresh(`${output}/variance`)],
      attribute: [...own.attribute, rawAttribute("training_mode", 1)],
    };
  }

  /**
   * Adds a BatchNormalization with fixed statistics behind output 0 of a node: `operands` are
   * scale, shift, mean and variance.
   */
  normalize(
    node: number,
    operands: readonly string[],
    { epsilon, momentum }: { readonly epsilon: number; readonly momentum: number },
  ): void {
    const own = this.#nodes[node];
    const [output = ""] = own?.output ?? [];
    if (own === undefined || output === "") return;
    const raw = this.#fresh(`${output}/plain`);
    this.#nodes[node] = { ...own, output: [raw, ...own.output.slice(1)] };
    const added = this.#node("BatchNormalization", [raw, ...operands], output);
    const attribute = [
      toRawAttribute("epsilon", { kind: "float", value: epsilon }),
      toRawAttribute("momentum", { kind: "float", value: momentum }),
    ];
    this.#after.set(node, [{ ...added, name: `${output}/BatchNormalization`, attribute }]);
  }

  #fresh(label: string): string {
    let name = label;
    for (let count = 1; this.#taken.has(name); count++) name = `${label}_${count}`;
    this.#taken.add(name);
    return name;
  }

  #node(
    opType: string,
    inputs: readonly string[],
    output: string,
    attributes: Readonly<Record<string, number | readonly number[]>> = {},
  ): RawNode {
    return {
      name: output,
      opType,
      domain: "",
      overload: "",
      deviceConfigurations: [],
      docString: "",
      input: [...inputs],
      output: [output],
      attribute: Object.entries(attributes).map(([name, value]) => rawAttribute(name, value)),
      metadataProps: [],
    };
  }

  /** The graph in its present form, without initializers that are not read any more. */
  result(): RawGraph {
    // An Identity is removed if its output is now a weight of its own.
    const nodes = this.#nodes.flatMap((node, at) =>
      this.#renamed.has(node.output[0] ?? "")
        ? []
        : [...(this.#prior.get(at) ?? []), node, ...(this.#after.get(at) ?? [])],
    );
    const node = [...this.#before, ...nodes];
    const read = new Set(node.flatMap(({ input }) => input));
    for (const { name } of this.#graph.output) read.add(name);
    // Branches read initializers of the graph around them.
    const nested = node.some(({ attribute }) => attribute.some(({ g }) => g !== undefined));
    // In the order of the file: each initializer under its new names, then under its own name if
    // that is still read.
    const initializer = this.#graph.initializer.flatMap((raw) => {
      const names = [...this.#renamed].filter(([, given]) => given === raw.name);
      const isGone = this.#renamed.has(raw.name) || this.#added.has(raw.name);
      const isOwn = !isGone && (nested || read.has(raw.name));
      return [...names.map(([name]) => ({ ...raw, name })), ...(isOwn ? [raw] : [])];
    });
    const added = [...this.#added].map(([name, tensor]) => toRawTensor(name, tensor));
    return { ...this.#graph, node, initializer: [...initializer, ...added] };
  }
}

function rawAttribute(name: string, value: number | readonly number[]): RawAttribute {
  const isList = typeof value !== "number";
  return toRawAttribute(name, isList ? { kind: "ints", value } : { kind: "int", value });
}
