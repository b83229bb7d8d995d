/**
 * The weights of a file: each has the name that it has in the model's state dict, its role, and the
 * reason for that role. `restore.ts` and `guess.ts` make such plans; `import.ts` uses them to
 * build.
 */

import type { OnnxFile, RawGraph, RawNode, RawTensor } from "../onnx/index.ts";
import { elementCount, type Tensor, toNumbers } from "../tensor/index.ts";

/**
 * The form of a weight in the state dict, compared with the file. `flat`: a vector; `rows`: the
 * file has only some of its rows, each once.
 */
export type Layout = "same" | "transposed" | "flat" | "rows";

export interface Weight {
  /** The name in the state dict. In the graph of the plan, the initializer has this name too. */
  readonly name: string;
  readonly role: "parameter" | "constant" | "statistic";
  /** The reason for the role, as part of a sentence: `a parameter by the file's signature`. */
  readonly why: string;
  /** Whether the file leaves the role open: then `trainable` decides. */
  readonly unclear?: true;
  /** The name of its place in the module, if the weight of that name is another one now. */
  readonly module?: string;
  /** The name of the initializer in the file that held it. */
  readonly given: string;
  readonly layout: Layout;
  /** Other names of the same weight in the state dict. */
  readonly ties: readonly string[];
}

export interface WeightPlan {
  /** The graph with its weights as they were before the export. */
  readonly graph: RawGraph;
  /** The weights by name. Initializers that are not here are constants of no interest. */
  readonly weights: ReadonlyMap<string, Weight>;
  /**
   * Sentences to be shown before the first step: what is uncertain about the weights, or may
   * surprise the user.
   */
  readonly notices: readonly string[];
  /**
   * Sentences about where gradients flow and which buffers change, which no list of parameters can
   * tell.
   */
  readonly gradients: readonly string[];
  /**
   * Parameters of the model that the file no longer has, with the constants into which they were
   * merged.
   */
  readonly lost: readonly string[];
}

/** A float initializer and the place where it is read. */
export interface Read {
  readonly node: number;
  readonly input: number;
  readonly initializer: string;
}

/** The places where nodes of the graph read float initializers, in the order of the file. */
export function readsOf(graph: RawGraph, floats: ReadonlyMap<string, RawTensor>): Read[] {
  return graph.node.flatMap(({ input }, node) =>
    input.flatMap((initializer, index) =>
      floats.has(initializer) ? [{ node, input: index, initializer }] : [],
    ),
  );
}

/** The nodes of branches and bodies of loops, with the input that reads each name. */
export function nestedReaders(graph: RawGraph): ReadonlyMap<string, readonly Reader[]> {
  const found = new Map<string, Reader[]>();
  const visit = (nodes: readonly RawNode[], depth: number): void => {
    for (const node of nodes) {
      for (const [input, name] of depth > 0 ? node.input.entries() : []) {
        found.set(name, [...(found.get(name) ?? []), { node, input }]);
      }
      for (const { g } of node.attribute) if (g !== undefined) visit(g.node, depth + 1);
    }
  };
  visit(graph.node, 0);
  return found;
}

export interface Reader {
  readonly node: RawNode;
  readonly input: number;
}

export function floatInitializers(file: OnnxFile): ReadonlyMap<string, RawTensor> {
  const float = ({ dataType }: RawTensor) => FLOATS.includes(dataType);
  return new Map(file.model.graph.initializer.filter(float).map((raw) => [raw.name, raw]));
}

// The numbers of float32, float16, float64, bfloat16.
const FLOATS = [1, 10, 11, 16];

/**
 * Whether all elements are equal. Exporters merge weights that happen to be equal (fresh scales and
 * biases of normalizations) into one; only weights whose elements differ can have been tied on
 * purpose.
 */
export function isUniform(tensor: Tensor): boolean {
  const { bytes } = tensor;
  const count = elementCount(tensor.shape);
  if (count === 0) return true;
  const width = bytes.byteLength / count;
  // If the bytes equal themselves shifted by one element, every element equals the one before.
  return Buffer.compare(bytes.subarray(width), bytes.subarray(0, bytes.byteLength - width)) === 0;
}

/**
 * The path of a weight's module: `model.layers.0.weight` → `model.layers.0`; empty for a weight of
 * the model itself.
 */
export function moduleOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf(".")));
}

/** Joins the first six names in a sentence. */
export function list(names: readonly string[]): string {
  const shown = names.slice(0, 6).join(", ");
  return names.length > 6 ? `${shown} and ${names.length - 6} more` : shown;
}

// This many elements are enough to recognize a mask.
const MOST_LOOKED_AT = 4096;

/** Whether a tensor has only zeros and ones, or zeros and a value that acts as infinity. */
export function isMask(tensor: Tensor): boolean {
  const count = Math.min(elementCount(tensor.shape), MOST_LOOKED_AT);
  const width = tensor.bytes.byteLength / Math.max(1, elementCount(tensor.shape));
  const bytes = tensor.bytes.subarray(0, count * width);
  const values = new Set(toNumbers({ dtype: tensor.dtype, shape: [count], bytes }));
  if ([...values].some((value) => value < -1e4 || value === Infinity)) return true;
  // A factor of e^-100 is zero in float32.
  return values.size === 2 && values.has(0) && [...values].some((v) => v === 1 || v <= -100);
}
