/**
 * What the weights of a file are: each with the name that it has in the model's state dict, its role, and why it has that
 * role. `restore.ts` and `guess.ts` make such plans; `import.ts` builds by them.
 */
import { elementCount, type Tensor, toNumbers } from "../../tensor/index.ts";
import type { OnnxFile } from "../read.ts";
import type { RawGraph, RawNode, RawTensor } from "../schema.ts";

/** How the state dict has a weight: flat is as a vector; rows means that the file has only some of its rows, each once. */
export type Layout = "same" | "transposed" | "flat" | "rows";

export interface Weight {
  /** In the state dict. In the graph of the plan the initializer has this name too. */
  readonly name: string;
  readonly role: "parameter" | "constant" | "statistic";
  /** Half a sentence: `a parameter by the file's signature`. */
  readonly why: string;
  /** Whether the file leaves it open: then `trainable` decides. */
  readonly unclear?: true;
  /** The name that its place has in the module, where the weight is not the one of that name any more. */
  readonly module?: string;
  /** The initializer of the file that held it. */
  readonly given: string;
  readonly layout: Layout;
  /** Other names of the same weight in the state dict. */
  readonly ties: readonly string[];
}

export interface WeightPlan {
  /** The graph with its weights as they were before the export. */
  readonly graph: RawGraph;
  /** By name. Initializers that are not here are constants of no interest. */
  readonly weights: ReadonlyMap<string, Weight>;
  /** What is not certain of the weights, or not as the user may think: sentences to be said before the first step. */
  readonly notices: readonly string[];
  /** The same of where gradients go, which no list of parameters can say. */
  readonly gradients: readonly string[];
  /** Parameters of the model that the file no longer has, with the constants that they went into. */
  readonly lost: readonly string[];
}

/** A float initializer and where it is read. */
export interface Read {
  readonly node: number;
  readonly input: number;
  readonly initializer: string;
}

/** Where nodes of the graph read float initializers, in the order of the file. */
export function readsOf(graph: RawGraph, floats: ReadonlyMap<string, RawTensor>): Read[] {
  return graph.node.flatMap(({ input }, node) =>
    input.flatMap((initializer, index) =>
      floats.has(initializer) ? [{ node, input: index, initializer }] : [],
    ),
  );
}

/** Nodes of branches and bodies of loops, and which input of theirs reads each name. */
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

// float32, float16, float64, bfloat16.
const FLOATS = [1, 10, 11, 16];

/**
 * Whether all elements are equal. Exporters merge weights that happen to be equal (fresh scales and biases of
 * normalization) into one; only weights that differ within can have been tied on purpose.
 */
export function isUniform(tensor: Tensor): boolean {
  const { bytes } = tensor;
  const count = elementCount(tensor.shape);
  if (count === 0) return true;
  const width = bytes.byteLength / count;
  // Equal to itself moved by one element: then every element equals the one before.
  return Buffer.compare(bytes.subarray(width), bytes.subarray(0, bytes.byteLength - width)) === 0;
}

/** `model.layers.0.weight` → `model.layers.0`; empty for a weight of the model itself. */
export function moduleOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf(".")));
}

/** Names in a sentence, the first six of them. */
export function list(names: readonly string[]): string {
  const shown = names.slice(0, 6).join(", ");
  return names.length > 6 ? `${shown} and ${names.length - 6} more` : shown;
}

// A look at so many elements tells a mask.
const MOST_LOOKED_AT = 4096;

/** Zeros and ones, or something as good as infinite. */
export function isMask(tensor: Tensor): boolean {
  const count = Math.min(elementCount(tensor.shape), MOST_LOOKED_AT);
  const width = tensor.bytes.byteLength / Math.max(1, elementCount(tensor.shape));
  const bytes = tensor.bytes.subarray(0, count * width);
  const values = new Set(toNumbers({ dtype: tensor.dtype, shape: [count], bytes }));
  if ([...values].some((value) => value < -1e4 || value === Infinity)) return true;
  // A factor of e^-100 is nothing in float32.
  return values.size === 2 && values.has(0) && [...values].some((v) => v === 1 || v <= -100);
}
