/**
 * Restores the weights of PyTorch's LSTM, GRU and RNN from the form in which its exporters store
 * them. ONNX has one tensor for both directions, (directions, gates·hidden, width), and another
 * order of the gates; both biases are concatenated in one tensor. Nothing was computed, so each
 * element can be traced back. In the graph, the parameters are split and joined again with Split
 * and Concat, whose gradients are Concat and Split.
 */

import type { OnnxFile, RawNode, RawTensor } from "../onnx/index.ts";
import { sameShape, type Tensor, tensorFrom } from "../tensor/index.ts";
import type { GraphEdit } from "./edit.ts";
import type { Read } from "./weights.ts";

/** The index of PyTorch's gate at each place of ONNX's order: iofc of ifgo, zrh of rzn. */
const GATES: Readonly<Record<string, readonly number[]>> = {
  LSTM: [0, 3, 1, 2],
  GRU: [1, 0, 2],
  RNN: [0],
};

/** The inputs of a recurrent node that hold weights. */
export const PACKED: Readonly<Record<number, string>> = { 1: "W", 2: "R", 3: "B" };

/**
 * One layer of a recurrent module. Its parameters are in PyTorch's order: for each direction, the
 * weights ih and hh, then the biases ih and hh.
 */
export interface RecurrentLayer {
  readonly directions: number;
  readonly hidden: number;
  readonly hasBiases: boolean;
  readonly gates: readonly number[];
}

export function isRecurrent({ opType, domain }: RawNode): boolean {
  return opType in GATES && (domain === "" || domain === "ai.onnx");
}

/** The layer of PyTorch that a node is; undefined if PyTorch has no such layer. */
export function recurrentLayer(node: RawNode): RecurrentLayer | undefined {
  const gates = GATES[node.opType];
  const attribute = (name: string) => node.attribute.find((own) => own.name === name);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const given = attribute("direction")?.s;
  const direction = given === undefined ? "forward" : text(given);
  const functions = (attribute("activations")?.strings ?? []).map(text);
  const isUsual = functions.length === 0 || node.opType === "RNN";
  const isPlain = ["clip", "activation_alpha", "activation_beta"].every((name) => !attribute(name));
  const hasPeepholes = (node.input[7] ?? "") !== "" || attribute("input_forget")?.i === 1;
  const resetsLast = node.opType !== "GRU" || attribute("linear_before_reset")?.i === 1;
  const hidden = attribute("hidden_size")?.i;
  if (gates === undefined || hidden === undefined || direction === "reverse") return undefined;
  if (!isUsual || !isPlain || hasPeepholes || !resetsLast) return undefined;
  const directions = direction === "bidirectional" ? 2 : 1;
  return { directions, hidden, hasBiases: (node.input[3] ?? "") !== "", gates };
}

/** The number of parameters that PyTorch has for a layer. */
export function parametersIn({ directions, hasBiases }: RecurrentLayer): number {
  return directions * (hasBiases ? 4 : 2);
}

/** The parameters of a layer that an input holds, in the order in which they are stored there. */
export function held<T>(layer: RecurrentLayer, input: number, parameters: readonly T[]): T[] {
  const each = layer.hasBiases ? 4 : 2;
  const wanted = input === 3 ? [2, 3] : [input - 1];
  return parameters.filter((_, at) => wanted.includes(at % each));
}

/** The names that PyTorch gives the parameters of layer `index` of a recurrent module. */
export function parameterNames(
  { directions, hasBiases }: RecurrentLayer,
  module: string,
  index: number,
): string[] {
  const kinds = ["weight_ih", "weight_hh", ...(hasBiases ? ["bias_ih", "bias_hh"] : [])];
  return ["", "_reverse"].slice(0, directions).flatMap((suffix) => {
    return kinds.map((kind) => `${module === "" ? "" : `${module}.`}${kind}_l${index}${suffix}`);
  });
}

/** Replaces packed tensors by parameters. */
export class Unpacking {
  readonly #file: OnnxFile;
  readonly #floats: ReadonlyMap<string, RawTensor>;
  readonly #edit: GraphEdit;
  /** The values that were already joined, by their parameters: a module may be called again. */
  readonly #joined = new Map<string, string>();

  constructor(file: OnnxFile, floats: ReadonlyMap<string, RawTensor>, edit: GraphEdit) {
    this.#file = file;
    this.#floats = floats;
    this.#edit = edit;
  }

  /**
   * Adds the parameters that `read`, an input of a recurrent node, holds, and lets the node read
   * the value that they are joined to.
   * @param names the names of the parameters, in the order in which they are stored there
   * @returns whether the packed tensor has the shape of such parameters
   */
  replace(layer: RecurrentLayer, read: Read, names: readonly string[]): boolean {
    const packed = this.#file.tensor(this.#floats.get(read.initializer) as RawTensor);
    const { directions, hidden, gates } = layer;
    const rows = gates.length * hidden;
    const isBias = read.input === 3;
    const rest = isBias ? [] : [packed.shape[2] ?? 0];
    const expected = [directions, isBias ? 2 * rows : rows, ...rest];
    if (!sameShape(packed.shape, expected)) return false;
    const size = packed.bytes.byteLength / Math.max(1, names.length);
    for (const [index, name] of names.entries()) {
      const bytes = packed.bytes.subarray(index * size, (index + 1) * size);
      const own: Tensor = { dtype: packed.dtype, shape: [rows, ...rest], bytes };
      this.#edit.add(name, byTorch(own, gates));
    }
    this.#edit.redirect(read, this.#join(layer, names, expected));
    return true;
  }

  #join({ gates }: RecurrentLayer, names: readonly string[], shape: readonly number[]): string {
    const key = names.join(" ");
    const known = this.#joined.get(key);
    if (known !== undefined) return known;
    const [first = ""] = names;
    const parts = names.flatMap((name) => {
      if (gates.length === 1) return [name];
      const cut = this.#edit.split(name, gates.length);
      return gates.map((gate) => cut[gate] as string);
    });
    const whole =
      parts.length === 1
        ? first
        : this.#edit.prepend("Concat", parts, `${first}/joined`, { axis: 0 });
    this.#edit.add(`${first}/shape`, tensorFrom("int64", [shape.length], shape));
    const packed = this.#edit.prepend("Reshape", [whole, `${first}/shape`], `${first}/packed`);
    this.#joined.set(key, packed);
    return packed;
  }
}

/** The rows of gates in PyTorch's order. */
function byTorch({ dtype, shape, bytes }: Tensor, gates: readonly number[]): Tensor {
  const size = bytes.byteLength / gates.length;
  const parts = gates.map((_, gate) => {
    const place = gates.indexOf(gate);
    return bytes.subarray(place * size, (place + 1) * size);
  });
  return { dtype, shape, bytes: Buffer.concat(parts) };
}
