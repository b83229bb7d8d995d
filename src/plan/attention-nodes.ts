/** ONNX's own operator of attention, as one node whose keys can go round a ring. */
import { reshape, transpose, where } from "../functional/index.ts";
import { type Graph, type Node, readAttributes, typeOf, type Value } from "../graph/index.ts";
import { operators } from "../ops/index.ts";
import { elementCount, type Shape } from "../tensor/index.ts";

/** Makes a value from those that a graph has. */
export type Made = (valueOf: (name: string) => Value) => Value;

export const RING = "lockstep::RingAttention";

/** @param trained what depends on parameters: a mask that does is not one */
export function ofOperator(
  graph: Graph,
  node: Node,
  trained: ReadonlySet<string>,
): Made | undefined {
  const [q = "", k = "", v = "", mask = "", ...past] = node.inputs;
  const attributes = readAttributes(operators.Attention, node.attributes, node.name);
  const isPlain =
    past.every((name) => name === "") &&
    node.outputs.slice(1).every((name) => name === "") &&
    attributes.number("softcap") === 0 &&
    !attributes.has("softmax_precision") &&
    !trained.has(mask);
  if (!isPlain) return undefined;
  const { shape } = typeOf(graph, q);
  const isFlat = shape.length === 3;
  const batch = shape[0] as number;
  const heads = isFlat ? attributes.number("q_num_heads") : (shape[1] as number);
  const shared = isFlat ? attributes.number("kv_num_heads") : (typeOf(graph, k).shape[1] as number);
  const isCausal = attributes.number("is_causal") === 1;
  const [queries, keys] = [q, k].map((name) => typeOf(graph, name).shape.at(-2) as number);
  const added = mask === "" ? [] : typeOf(graph, mask).shape;
  const isWhole = mask === "" || added.at(-1) === keys;
  if ((isCausal && queries !== keys) || !isWhole || added.length > 4) return undefined;
  const isGrouped = heads !== shared;
  /** (batch, heads, places, size), or with a dim for the heads that share keys. */
  const matrices = (x: Value, count: number): Value => {
    const places = x.shape.at(-2) as number;
    const size = elementCount(x.shape) / (batch * count * places);
    const parted = isFlat ? transpose(reshape(x, [batch, places, count, size]), [0, 2, 1, 3]) : x;
    return isGrouped ? reshape(parted, [batch, shared, count / shared, places, size]) : parted;
  };
  return (valueOf) => {
    const inputs = [
      matrices(valueOf(q), heads),
      matrices(valueOf(k), shared),
      matrices(valueOf(v), shared),
    ] as const;
    const size = inputs[0].shape.at(-1) as number;
    const scale = attributes.has("scale") ? attributes.number("scale") : 1 / Math.sqrt(size);
    const others =
      mask === ""
        ? []
        : [maskOf(valueOf(mask), inputs[0], isGrouped ? [shared, heads] : undefined)];
    const [y] = inputs[0].builder.emit(RING, [...inputs, ...others], {
      scale,
      causal: isCausal ? 1 : 0,
    });
    const whole = y as Value;
    const values = whole.shape.at(-1) as number;
    const parted = reshape(whole, [batch, heads, queries as number, values]);
    return isFlat
      ? reshape(transpose(parted, [0, 2, 1, 3]), [batch, queries as number, heads * values])
      : parted;
  };
}

/** What is added to scores. Where heads share keys, they are two dims. */
function maskOf(
  mask: Value,
  { dtype, builder }: Value,
  grouped: readonly [shared: number, heads: number] | undefined,
): Value {
  const [zero, hidden] = [0, Number.NEGATIVE_INFINITY].map((number) =>
    builder.scalar(dtype, number),
  ) as [Value, Value];
  const added = mask.dtype === "bool" ? where(mask, zero, hidden) : mask;
  if (grouped === undefined || added.shape.length < 3) return added;
  const [shared, heads] = grouped;
  const ofHeads: Shape = added.shape.at(-3) === heads ? [shared, heads / shared] : [1, 1];
  return reshape(added, [...added.shape.slice(0, -3), ...ofHeads, ...added.shape.slice(-2)]);
}
