import {
  add,
  cast,
  matmul,
  mul,
  reduceSum,
  reshape,
  softmax,
  sub,
  sumTo,
  swapLast,
  transpose,
  tril,
  where,
} from "../../functional/index.ts";
import type { GradientContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { floatType, noGradient } from "../shared.ts";
import { attentionDivisions } from "./attention-divisions.ts";
import { attentionGeometry, type Geometry } from "./attention-geometry.ts";

/**
 * softmax(scale · Q·Kᵀ + mask) · V (Vaswani et al. 2017) of Q (B, heads, T, size) or (B, T, heads ·
 * size), with fewer heads of K and V if they are shared (grouped queries). Inputs: Q, K, V, mask,
 * past keys, past values. Outputs: the result, present keys and values, and the products of Q and
 * K.
 */
export const attention: OperatorDefinition = {
  name: "Attention",
  inputs: [3, 6],
  outputs: [1, 4],
  attributes: {
    is_causal: { kind: "int", default: 0 },
    kv_num_heads: { kind: "int", default: 0 },
    q_num_heads: { kind: "int", default: 0 },
    qk_matmul_output_mode: { kind: "int", default: 0 },
    scale: { kind: "float", default: null },
    softcap: { kind: "float", default: 0 },
    softmax_precision: { kind: "int", default: null },
  },
  infer: (context) => {
    const { dtype, shape } = floatType(context);
    const { batch, heads, shared, queries, keys, size, valueSize } = attentionGeometry(context);
    const past = context.inputs[4]?.shape[2] ?? 0;
    const total = past + keys;
    const result =
      shape.length === 4 ? [batch, heads, queries, valueSize] : [batch, queries, heads * valueSize];
    return [
      { dtype, shape: result },
      { dtype, shape: [batch, shared, total, size] },
      { dtype, shape: [batch, shared, total, valueSize] },
      { dtype, shape: [batch, heads, queries, total] },
    ];
  },
  gradient: attentionGradient,
  flops: (context) => {
    const { batch, heads, queries, keys, size, valueSize } = attentionGeometry(context);
    return 2 * batch * heads * queries * keys * (size + valueSize);
  },
  inPlace: false,
  divisions: attentionDivisions,
};

/**
 * Computes the probabilities again from Q and K, then applies the formula dS = P · (dP − Σ dY·Y).
 */
function attentionGradient(context: GradientContext): (Value | undefined)[] {
  refuseUnknown(context);
  const given = attentionGeometry({
    ...context,
    fail: (what) => noGradient(context, `: ${what}`, ""),
  });
  const { batch, heads, shared, queries, keys, size, valueSize } = given;
  const repeat = heads / shared;
  // (B, heads of K, repeat, T, size): keys and values broadcast over the heads that share them.
  const split = (x: Value, count: number, times: number, places: number, width: number) =>
    x.shape.length === 4
      ? reshape(x, [batch, count, times, places, width])
      : transpose(reshape(x, [batch, places, count, times, width]), [0, 2, 3, 1, 4]);
  const merge = (x: Value, like: Value) =>
    reshape(like.shape.length === 4 ? x : transpose(x, [0, 3, 1, 2, 4]), like.shape);
  const [qIn, kIn, vIn] = [context.input(0), context.input(1), context.input(2)];
  const q = split(qIn, shared, repeat, queries, size);
  const k = split(kIn, shared, 1, keys, size);
  const v = split(vIn, shared, 1, keys, valueSize);
  const y = split(context.output(0), shared, repeat, queries, valueSize);
  const dy = split(context.gradient(0), shared, repeat, queries, valueSize);
  const scale = context.attributes.has("scale")
    ? context.attributes.number("scale")
    : 1 / Math.sqrt(size);
  const mask = maskOf(context, given);
  const scores = mul(matmul(q, swapLast(k)), scale);
  const p = softmax(mask === undefined ? scores : add(scores, mask.value));
  const dv = () => sumTo(matmul(swapLast(p), dy), v.shape);
  const ds = mul(p, sub(matmul(dy, swapLast(v)), reduceSum(mul(dy, y), { axes: [4] })));
  const scaled = mul(ds, scale);
  const dMask = () => {
    const grouped = reshape(ds, [batch, heads, queries, keys]);
    return sumTo(grouped, context.input(3).shape);
  };
  return [
    context.needs(0) ? merge(matmul(scaled, k), qIn) : undefined,
    context.needs(1) ? merge(sumTo(matmul(swapLast(scaled), q), k.shape), kIn) : undefined,
    context.needs(2) ? merge(dv(), vIn) : undefined,
    context.needs(3) ? dMask() : undefined,
  ];
}

function refuseUnknown(context: GradientContext): void {
  const hint = "Write this attention with MatMul and Softmax.";
  if (context.inputs[4] !== undefined || context.inputs[5] !== undefined) {
    noGradient(context, "with past keys and values", "Train without a cache.");
  }
  if (context.attributes.number("softcap") !== 0) noGradient(context, "with softcap", hint);
  if (context.gradients.slice(1).some((gradient) => gradient !== undefined)) {
    noGradient(context, "through its outputs 1 to 3", hint);
  }
}

/** The value that is added to the scores; it broadcasts to (B, heads of K, repeat, T, keys). */
function maskOf(context: GradientContext, size: Geometry): { value: Value } | undefined {
  const { dtype } = context.input(0);
  const { builder } = context;
  const parts: Value[] = [];
  const forbidden = builder.scalar(dtype, Number.NEGATIVE_INFINITY);
  const none = builder.scalar(dtype, 0);
  if (context.attributes.number("is_causal") === 1) {
    const ones = tensorFrom(
      "int32",
      [size.queries, size.keys],
      new Int32Array(size.queries * size.keys).fill(1),
    );
    parts.push(where(cast(tril(builder.constant(ones)), "bool"), none, forbidden));
  }
  const mask = context.inputs[3];
  if (mask !== undefined) {
    const given = mask.dtype === "bool" ? where(mask, none, forbidden) : mask;
    parts.push(grouped(given, size));
  }
  return parts.length === 0 ? undefined : { value: parts.reduce((a, b) => add(a, b)) };
}

/** A mask (…, heads, T, keys) whose heads are split into (heads of K, repeat). */
function grouped(mask: Value, { heads, shared }: Geometry): Value {
  const shape = mask.shape;
  if (shape.length < 3) return mask;
  const own = shape.at(-3) as number;
  const lead = shape.slice(0, -3);
  const parted = own === 1 ? [1, 1] : [shared, heads / shared];
  return reshape(mask, [...lead, ...parted, ...shape.slice(-2)]);
}
