/**
 * Restores the names that PyTorch's older exporter replaced, from the nodes that read the weights:
 * it calls a weight that it transposed or merged `onnx::MatMul_185`, but the node that reads it is
 * `/blocks.0/qkv/MatMul`.
 */
import type { RawGraph, RawTensor } from "../onnx/index.ts";
import { moduleOf, type Weight } from "./weights.ts";

/** The inputs that hold weights, by operator. */
export const WEIGHTS: Readonly<Record<string, readonly number[]>> = {
  Conv: [1, 2],
  ConvTranspose: [1, 2],
  ConvInteger: [1],
  Gemm: [0, 1, 2],
  BatchNormalization: [1, 2],
  LayerNormalization: [1, 2],
  SimplifiedLayerNormalization: [1],
  RMSNormalization: [1],
  GroupNormalization: [1, 2],
  PRelu: [1],
  LSTM: [1, 2, 3, 7],
  GRU: [1, 2, 3],
  RNN: [1, 2, 3],
};
/** The names that exporters generate. */
export const MADE_UP =
  /^(onnx::|val_\d|\/|_v_\d|const|Const|.*const_fold_opt|.*_output_\d+$|\d+$|new_shape|init_?\d|dpa_scale_\d)/;

/** The path of a node's module: `/blocks.0/norm/Mul` → `/blocks.0/norm`. */
export function path(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf("/")));
}

/** The name of a weight in its module, for weights that the exporter renamed. */
export interface OwnName {
  readonly name: string;
  readonly layout: Weight["layout"];
}

/**
 * The names of weights in the module that a file was exported from. PyTorch calls those that it
 * transposed or merged `onnx::MatMul_185`, but the node that reads it is `/blocks.0/qkv/MatMul`:
 * this returns `blocks.0.qkv.weight`.
 */
export function moduleNames(
  graph: RawGraph,
  floats: ReadonlyMap<string, RawTensor>,
  aliases: ReadonlyMap<string, string>,
): ReadonlyMap<string, OwnName> {
  const names = new Map<string, OwnName>();
  const real = [...floats.keys(), ...aliases.keys()].filter((name) => !MADE_UP.test(name));
  const known = new Set(real);
  const moduleOfNode = nodeModules(real);
  const biases = biasesBeside(graph, known);
  const groups = new Set(
    graph.node.filter(({ opType }) => opType === "InstanceNormalization").map((n) => path(n.name)),
  );
  for (const { name, opType, input, output } of graph.node) {
    const scope = moduleOfNode(name);
    if (scope === undefined) continue;
    const beside = biases.get(output[0] ?? "");
    // If a module reads several weights itself, they get their names from the biases that are
    // added.
    const module = beside?.startsWith(`${scope}.`) === true ? beside : scope;
    const isGroup = groups.has(path(name));
    for (const [index, weight] of input.entries()) {
      const raw = floats.get(aliases.get(weight) ?? weight);
      if (!weight.startsWith("onnx::") || names.has(weight) || raw === undefined) continue;
      const isShift = isGroup && opType === "Add";
      const isBias = isShift || ((opType === "Conv" || opType === "Gemm") && index === 2);
      const isWeight = WEIGHTS[opType]?.includes(index) === true || opType === "MatMul";
      if (!isBias && !isWeight && !(isGroup && opType === "Mul")) continue;
      const isTurned = opType === "MatMul" && index === 1 && raw.dims.length === 2;
      const layout = isTurned ? "transposed" : opType === "PRelu" || isGroup ? "flat" : "same";
      const weightName = known.has(`${module}.in_proj_bias`) ? "in_proj_weight" : "weight";
      names.set(weight, { name: `${module}.${isBias ? "bias" : weightName}`, layout });
    }
  }
  return names;
}

/**
 * Returns a function from the name of a node to its module, given the weights that kept their
 * names; undefined for names of other forms.
 */
export function nodeModules(weights: readonly string[]): (node: string) => string | undefined {
  const modules = new Set(weights.map(moduleOf));
  return (node) => {
    const [empty, ...parts] = node.split("/");
    if (empty !== "" || parts.length < 2) return undefined;
    return moduleAt(joined(parts.slice(0, -1)), modules);
  };
}

/** By the output of a product: the module whose bias is added to it. */
function biasesBeside(graph: RawGraph, known: ReadonlySet<string>): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const { opType, input } of graph.node) {
    const bias = opType === "Add" ? input.find((name) => name.endsWith(".bias")) : undefined;
    const product = input.find((name) => name !== bias);
    if (bias !== undefined && product !== undefined && known.has(bias)) {
      found.set(product, moduleOf(bias));
    }
  }
  return found;
}

/**
 * Joins `blocks`, `blocks.0`, `attn` to `blocks.0.attn`: the parts of a list of modules repeat the
 * list's name.
 */
function joined(path: readonly string[]): string {
  const parts: string[] = [];
  for (const part of path) {
    if (part.startsWith(`${parts.at(-1)}.`)) parts.pop();
    parts.push(part);
  }
  return parts.join(".");
}

/**
 * The module of a node, found by the names of weights that the file kept: the exporter omits a part
 * that repeats the one before it (`model.model`), and appends a number if a module is called again
 * (`shared_1`).
 */
function moduleAt(path: string, modules: ReadonlySet<string>): string {
  if (modules.has(path)) return path;
  const base = path.replace(/_\d+$/, "");
  if (modules.has(base)) return base;
  for (let part = path; part !== ""; part = moduleOf(part)) {
    const rest = path.slice(part.length);
    if (part !== path && modules.has(part)) return path;
    const longer = [...modules].filter((module) => module.endsWith(`.${part}`));
    if (longer.length === 1) return `${longer[0]}${rest}`;
  }
  return path;
}
