/**
 * Assigns PyTorch's parameters to the weights of recurrent layers. The newer exporter lists them
 * for each operation; the older one names each node after its module, and a module's layers follow
 * each other.
 */

import type { OnnxFile, RawGraph, RawNode, RawTensor } from "../onnx/index.ts";
import { elementCount, sameShape, type Tensor } from "../tensor/index.ts";
import type { GraphEdit } from "./edit.ts";
import { type Operation, operationOf, type Placeholder } from "./exported.ts";
import {
  held,
  isRecurrent,
  PACKED,
  parameterNames,
  parametersIn,
  type RecurrentLayer,
  recurrentLayer,
  Unpacking,
} from "./packed.ts";
import { sameBytes } from "./same.ts";
import { isUniform, type Read, type Weight } from "./weights.ts";

/** The result for the reads of an operation. */
export interface RecurrentWeights {
  /** The weights that the graph has now. */
  readonly weights: readonly Weight[];
  /** The reads of weights that the file did not pack. */
  readonly places: readonly { readonly placeholder: Placeholder; readonly read: Read }[];
  /** The given reads that need no further treatment. */
  readonly taken: ReadonlySet<Read>;
}

/** A layer in a file of the older exporter. */
interface Scoped {
  readonly module: string;
  readonly index: number;
  readonly layer: RecurrentLayer;
  readonly w: Tensor;
  readonly r: Tensor;
}

/** Matches the weight of LSTM's `proj_size`. */
export const PROJECTION = /(^|\.)weight_hr_l\d+(_reverse)?$/;
const INPUTS = Object.keys(PACKED).map(Number);

export class Recurrences {
  /** The names of parameters in tensors that stay packed. */
  readonly consumed = new Set<string>();
  /**
   * The names of projections of states: PyTorch's exporter omits them, so the file computes
   * something else.
   */
  readonly projections = new Set<string>();
  readonly #file: OnnxFile;
  readonly #graph: RawGraph;
  readonly #floats: ReadonlyMap<string, RawTensor>;
  readonly #edit: GraphEdit;
  readonly #unpacking: Unpacking;
  readonly #stillPacked: string[] = [];

  constructor(file: OnnxFile, floats: ReadonlyMap<string, RawTensor>, edit: GraphEdit) {
    this.#file = file;
    this.#graph = file.model.graph;
    this.#floats = floats;
    this.#edit = edit;
    this.#unpacking = new Unpacking(file, floats, edit);
  }

  /** Notices about weights that keep ONNX's form. */
  notices(): readonly string[] {
    const names = this.#stillPacked;
    if (names.length === 0) return [];
    const more = names.length > 6 ? ` and ${names.length - 6} more` : "";
    return [
      `${names.slice(0, 6).join(", ")}${more}: weights of recurrent layers as ONNX packs them (its order of gates, all biases in ` +
        "one tensor). They are trained and saved in this form: the file does not say what they were before.",
    ];
  }

  /** Assigns parameters by the list that the operation was called with. `layers` are its nodes. */
  ofOperation(
    layers: readonly number[],
    reads: readonly Read[],
    operation: Operation,
    signature: ReadonlyMap<string, Placeholder>,
  ): RecurrentWeights {
    const parameters = listedWeights(operation).flatMap((name) => signature.get(name) ?? []);
    const each = parameters.length / layers.length;
    const weights: Weight[] = [];
    const places: { placeholder: Placeholder; read: Read }[] = [];
    const taken = new Set<Read>();
    for (const [index, node] of layers.entries()) {
      const layer = recurrentLayer(this.#graph.node[node] as RawNode);
      const isKnown = layer !== undefined && parametersIn(layer) === each;
      const own = parameters.slice(index * each, (index + 1) * each);
      for (const { target } of own) if (PROJECTION.test(target)) this.projections.add(target);
      for (const input of INPUTS) {
        const wanted = isKnown ? held(layer, input, own) : [];
        const direct = reads.find((read) => read.node === node && read.input === input);
        if (direct !== undefined) {
          const found = this.#unpack(layer, direct, wanted);
          weights.push(...(found ?? [this.#keep(direct, join(operation.module, PACKED[input]))]));
          if (found === undefined) for (const { target } of own) this.consumed.add(target);
          taken.add(direct);
          continue;
        }
        // Equal biases are one initializer, which is split for several parameters.
        const leaves = this.#leaves({ node, input }) ?? [];
        const cuts = leaves.length / wanted.length;
        for (const [at, leaf] of Number.isInteger(cuts) ? leaves.entries() : []) {
          const read = reads.find((r) => r.node === leaf.node && r.input === leaf.input);
          const placeholder = wanted[Math.floor(at / cuts)];
          if (read === undefined || placeholder === undefined || taken.has(read)) continue;
          places.push({ placeholder, read });
          taken.add(read);
        }
      }
    }
    return { weights, places, taken };
  }

  /**
   * Assigns parameters by the names of nodes, in a file of PyTorch's older exporter.
   * @param reads the reads of initializers by nodes of the file
   * @param moduleOf returns the module of a node by the node's name; absent if names do not tell it
   */
  ofScopes(
    reads: readonly Read[],
    moduleOf: ((node: string) => string | undefined) | undefined,
  ): Pick<RecurrentWeights, "weights" | "taken"> {
    const weights = new Map<string, Weight>();
    const taken = new Set<Read>();
    const known: Scoped[] = [];
    for (const [node, raw] of this.#graph.node.entries()) {
      if (!isRecurrent(raw)) continue;
      const own = reads.filter((read) => read.node === node && read.input in PACKED);
      const scoped = moduleOf && this.#scoped(raw, own, known, moduleOf);
      if (scoped !== undefined) known.push(scoped);
      for (const read of own) {
        const names =
          scoped === undefined
            ? []
            : held(
                scoped.layer,
                read.input,
                parameterNames(scoped.layer, scoped.module, scoped.index),
              );
        const found = this.#unpack(
          scoped?.layer,
          read,
          names.map((target) => ({ name: target, kind: "parameter", target })),
        );
        if (found === undefined) {
          if (!this.#stillPacked.includes(read.initializer)) {
            this.#stillPacked.push(read.initializer);
          }
          continue;
        }
        for (const weight of found) weights.set(weight.name, weight);
        taken.add(read);
      }
    }
    return { weights: [...weights.values()], taken };
  }

  /**
   * The module and the layer in it that a node is; undefined if neither its name nor its position
   * among the others says so.
   */
  #scoped(
    node: RawNode,
    reads: readonly Read[],
    known: readonly Scoped[],
    moduleOf: (node: string) => string | undefined,
  ): Scoped | undefined {
    const layer = recurrentLayer(node);
    const isPacked = reads.every(({ initializer }) => initializer.startsWith(`onnx::`));
    const tensorOf = (input: number): Tensor | undefined => {
      const raw = this.#floats.get(reads.find((read) => read.input === input)?.initializer ?? "");
      return raw && this.#file.tensor(raw);
    };
    const [w, r] = [tensorOf(1), tensorOf(2)];
    const isWhole = layer !== undefined && reads.length === (layer.hasBiases ? 3 : 2);
    if (!isWhole || !isPacked || !node.name.startsWith("/")) return undefined;
    if (w === undefined || r === undefined) return undefined;
    const again = known.find((other) => isSame(other.w, w) && isSame(other.r, r));
    if (again !== undefined) return again;
    // `/LSTM` is the model itself.
    const module = node.name.lastIndexOf("/") === 0 ? "" : moduleOf(node.name);
    if (module === undefined) return undefined;
    const below = known.filter((other) => other.module === module);
    const before = below.at(-1);
    if (before === undefined) return { module, index: 0, layer, w, r };
    // The next layer of a module takes the result of the one before it.
    const { directions, hidden, hasBiases, gates } = before.layer;
    const follows =
      layer.directions === directions &&
      layer.hidden === hidden &&
      layer.hasBiases === hasBiases &&
      layer.gates === gates &&
      w.shape[2] === directions * hidden;
    return follows ? { module, index: below.length, layer, w, r } : undefined;
  }

  #unpack(
    layer: RecurrentLayer | undefined,
    read: Read,
    parameters: readonly Placeholder[],
  ): readonly Weight[] | undefined {
    if (layer === undefined || parameters.length === 0) return undefined;
    const names = parameters.map(({ target }) => target);
    if (!this.#unpacking.replace(layer, read, names)) return undefined;
    return parameters.map(({ target: name, kind }) => ({
      name,
      role: kind === "parameter" ? "parameter" : "constant",
      why: `it was packed into "${read.initializer}" for ONNX`,
      given: read.initializer,
      layout: "same",
      ties: [],
    }));
  }

  /**
   * Keeps ONNX's tensors and order of gates. They are trained in this form, because elements were
   * only moved.
   */
  #keep(read: Read, name: string): Weight {
    this.#edit.copy(read.initializer, name);
    this.#edit.redirect(read, name);
    this.#stillPacked.push(name);
    const why = "weights of a recurrent layer as ONNX packs them";
    return { name, role: "parameter", why, given: read.initializer, layout: "same", ties: [] };
  }

  /**
   * The reads of the initializers from which an input of a node is joined, in order, if those are
   * only split and joined.
   */
  #leaves({ node, input }: Omit<Read, "initializer">): Read[] | undefined {
    const name = this.#graph.node[node]?.input[input] ?? "";
    if (this.#floats.has(name)) return [{ node, input, initializer: name }];
    const maker = this.#graph.node.findIndex(({ output }) => output.includes(name));
    const { opType = "", input: inputs = [] } = this.#graph.node[maker] ?? {};
    if (name === "" || !/^(Concat|Slice|Split|Unsqueeze|Reshape|Identity)$/.test(opType)) {
      return undefined;
    }
    const read = opType === "Concat" ? inputs : inputs.slice(0, 1);
    const found = read.map((_, index) => this.#leaves({ node: maker, input: index }));
    return found.includes(undefined) ? undefined : (found as Read[][]).flat();
  }
}

/** The nodes that an operation became, one for each layer; none if it is not recurrent. */
export function layersOf(graph: RawGraph, operation: Operation | undefined): number[] {
  if (operation === undefined) return [];
  return graph.node.flatMap((node, index) =>
    isRecurrent(node) && operationOf(node)?.name === operation.name ? [index] : [],
  );
}

/**
 * The names in the list of weights that an operation `lstm(x, [h, c], [weights], …)` was called
 * with.
 */
function listedWeights({ args }: Operation): string[] {
  const lists = [...args.matchAll(/\[((?:%\w+(?:, )?)+)\]/g)];
  return [...(lists.at(-1)?.[1] ?? "").matchAll(/%(\w+)/g)].map(([, name = ""]) => name);
}

function isSame(a: Tensor, b: Tensor): boolean {
  return (
    elementCount(a.shape) > 0 && sameShape(a.shape, b.shape) && !isUniform(a) && sameBytes(a, b)
  );
}

function join(module: string, name = ""): string {
  return module === "" ? name : `${module}.${name}`;
}
