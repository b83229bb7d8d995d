/**
 * Finds batch normalizations that the newer exporter's optimizer multiplied into the layer before
 * them. The file only has the product, so in general this cannot be undone. But if all shifts are
 * zero, as they are before any training and never after it, the normalization is assumed to be as
 * PyTorch initializes it: scales and variances of one. This assumption is reported.
 */

import type { RawNode } from "../onnx/index.ts";
import { evaluateNode, fromTensor, toTensor } from "../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import type { Operation, Placeholder } from "./exported.ts";
import { matrixLayout, outputChannels } from "./forms.ts";
import type { RestoreContext } from "./restore-context.ts";
import { list, moduleOf, type Weight } from "./weights.ts";

export interface UnfusedContext extends RestoreContext {
  /** The weights of the signature, by the names that operations read. */
  readonly signature: ReadonlyMap<string, Placeholder>;
}

export interface Unfused {
  /** The nodes whose weights are restored. */
  readonly nodes: ReadonlySet<number>;
  readonly weights: readonly Weight[];
  readonly notices: readonly string[];
}

const LAYERS = /^(Conv|ConvTranspose|Gemm)$/;
/**
 * A normalization with fixed statistics: `(x, scale, shift, mean, variance, momentum, epsilon)`.
 */
const NORMALIZATION = "_native_batch_norm_legit_no_training";

export function restoreUnfused(context: UnfusedContext): Unfused {
  const nodes = new Set<number>();
  const weights: Weight[] = [];
  const names: string[] = [];
  for (const [at, operation] of context.operations.entries()) {
    const node = context.file.model.graph.node[at] as RawNode;
    if (operation?.operator !== NORMALIZATION || !LAYERS.test(node.opType)) continue;
    const restored = restore(context, at, node, operation);
    if (restored === undefined) continue;
    nodes.add(at);
    weights.push(...restored);
    names.push(operation.module);
  }
  if (names.length === 0) return { nodes, weights, notices: [] };
  const notice =
    `The exporter folded these normalizations into the layers before them; their shifts are zeros, as before any training, so ` +
    `they are taken as fresh, with scales and variances of 1: ${list(names)}. ` +
    `If they have others, export with optimize=False.`;
  return { nodes, weights, notices: [notice] };
}

function restore(
  context: UnfusedContext,
  at: number,
  node: RawNode,
  { args }: Operation,
): readonly Weight[] | undefined {
  const { file, floats, edit, reads, signature } = context;
  const [, scale, shift, mean, variance, momentum = "", epsilon = ""] = args.split(", ");
  const [, name = "", bias = ""] = node.input;
  const raw = floats.get(name);
  const targets = new Map([...signature.values()].map((item) => [item.target, item]));
  const readers = reads.filter(({ initializer }) => initializer === name);
  const isOwn = targets.get(name)?.kind === "parameter" && readers.length === 1;
  const channels = raw && outputChannels(node, raw.dims);
  if (raw === undefined || channels === undefined || !isOwn || !(Number(epsilon) >= 0)) return;
  const product = file.tensor(raw);
  // Scales of zero would have erased the weights.
  if (isZero(product) || !isAbsentOrZero(context, bias)) return;
  const weights: Weight[] = [];
  const add = (target: string, tensor: Tensor, why: string, layout: Weight["layout"] = "same") => {
    edit.add(target, tensor);
    const role = targets.get(target)?.kind === "parameter" ? "parameter" : "constant";
    weights.push({ name: target, role, why, given: target === name ? name : "", layout, ties: [] });
  };
  const filled = (value: number) =>
    tensorFrom(product.dtype, [channels], new Array<number>(channels).fill(value));
  const plain = unscaled(product, Number(epsilon));
  add(name, plain, "freed of the normalization folded into it", matrixLayout(node));
  const layerBias = `${moduleOf(name)}.bias`;
  const hasBias = targets.has(layerBias);
  if (hasBias) add(layerBias, filled(0), "a bias of zeros that the exporter left out");
  if (hasBias || bias !== "") {
    edit.redirect({ node: at, input: 2, initializer: bias }, hasBias ? layerBias : "");
  }
  const operands = [scale, shift, mean, variance].map((text = "", index) => {
    const target = signature.get(text.replace("%", ""))?.target;
    const own = target ?? `${name}/normalization_${index}`;
    const tensor = filled(index === 0 || index === 3 ? 1 : 0);
    if (target === undefined) edit.add(own, tensor);
    else add(own, tensor, "of a normalization that was folded, taken as fresh");
    return own;
  });
  edit.normalize(at, operands, { epsilon: Number(epsilon), momentum: 1 - Number(momentum) });
  return weights;
}

function isZero(tensor: Tensor): boolean {
  return toNumbers(tensor).every((value) => value === 0);
}

/** Whether nothing is added to the products of a layer. */
function isAbsentOrZero({ file, floats }: UnfusedContext, bias: string): boolean {
  const raw = floats.get(bias);
  return raw === undefined ? bias === "" : isZero(file.tensor(raw));
}

/**
 * Undoes an exporter's multiplication by 1 / sqrt(1 + epsilon) in float32. The factor is close to
 * one, so the quotient by the same rounded factor is exactly the original element, except for one
 * in some hundred thousand elements.
 */
function unscaled(product: Tensor, epsilon: number): Tensor {
  const factor = Math.fround(1 / Math.fround(Math.sqrt(Math.fround(1 + Math.fround(epsilon)))));
  const divisor = tensorFrom(product.dtype, [], [factor]);
  const type = { dtype: product.dtype, shape: product.shape };
  const node = { op: "Div", name: "unscaled", attributes: {} };
  const [result] = evaluateNode(node, [fromTensor(product), fromTensor(divisor)], [type]);
  return toTensor(result as NonNullable<typeof result>);
}
