/**
 * How attention is divided: by samples, by heads (Shoeybi et al., "Megatron-LM", 2019), and by
 * queries, each of which sees all keys that it may.
 */
import { add, and, div, gather, lessOrEqual, mul, reshape, where } from "../../functional/index.ts";
import type {
  AttributeInputs,
  Division,
  DivisionContext,
  LocalContext,
  Value,
} from "../../graph/index.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { alignedDim, along, divisionOf, sectionSizes } from "../divisions.ts";
import { inUnits, placesOfPart, unsectioned } from "../parts.ts";
import { attentionGeometry, type Geometry } from "./attention-geometry.ts";

export function attentionDivisions(context: DivisionContext): Division[] {
  const sizes = attentionGeometry(context);
  if (!isRegular(context, sizes)) return [];
  const samples = cutOf(context, { own: 0, scores: 0, size: sizes.batch, keys: true });
  return [
    ...samples,
    ...byHeads(context, sizes),
    ...bySharedHeads(context, sizes),
    ...byQueries(context, sizes),
    ...ofValues(context),
  ];
}

/** Whether all inputs have the sizes of Q and K, or those that broadcast to them. */
function isRegular(context: DivisionContext, sizes: Geometry): boolean {
  const { inputs } = context;
  const { batch, heads, shared, queries, keys } = sizes;
  const total = (inputs[4]?.shape[2] ?? 0) + keys;
  const full = [batch, heads, queries, total];
  const mask = inputs[3]?.shape ?? [];
  const fits = mask.every((size, dim) => size === 1 || size === full[dim + 4 - mask.length]);
  const past = [inputs[4], inputs[5]].every(
    (type) => type === undefined || (type.shape[0] === batch && type.shape[1] === shared),
  );
  const now = [inputs[1], inputs[2]].every(
    (type) => type?.shape[0] === batch && (isFlat(context) || type.shape[1] === shared),
  );
  return fits && mask.length <= 4 && past && now;
}

interface AttentionCut {
  /** The dim that is cut in Q and in the result. */
  readonly own: number;
  /** The same among the dims of the scores (batch, heads, queries, keys). */
  readonly scores: 0 | 1 | 2;
  readonly size: number;
  /** Whether keys and values are cut with Q. */
  readonly keys: boolean;
  readonly local?: Division["local"];
}

function cutOf(
  context: DivisionContext,
  { own, scores, size, keys, local }: AttentionCut,
): Division[] {
  const now = keys ? own : undefined;
  // Past and present keys always have the dims (batch, heads, places, size).
  const cached = keys ? scores : undefined;
  const mask = alignedDim(context.inputs[3]?.shape, 4, scores, size);
  const [pastKeys, pastValues] = [4, 5].map((at) => context.inputs[at] && cached);
  const inputs = [own, now, now, mask, pastKeys, pastValues];
  const outputs = [own, cached, cached, scores];
  return along(context, {
    inputs: inputs.slice(0, context.inputs.length),
    outputs: outputs.slice(0, context.outputs.length),
    local,
  });
}

const isFlat = (context: DivisionContext) => context.input(0).shape.length === 3;

/** The attributes that count heads, where a node has them: with 4 dims, shapes say the same. */
function headCounts(context: DivisionContext, heads: number, shared: number): AttributeInputs {
  const { attributes } = context;
  return {
    ...(attributes.number("q_num_heads") > 0 && { q_num_heads: heads }),
    ...(attributes.number("kv_num_heads") > 0 && { kv_num_heads: shared }),
  };
}

/** Each rank has some of the heads of Q, and those of K and V that belong to them. */
function byHeads(context: DivisionContext, { heads, shared }: Geometry): Division[] {
  const { ranks } = context;
  return cutOf(inUnits(context, heads, shared), {
    own: isFlat(context) ? 2 : 1,
    scores: 1,
    size: heads,
    keys: true,
    local: ({ inputs, again }) => again(inputs, headCounts(context, heads / ranks, shared / ranks)),
  });
}

/** There are fewer heads of K and V than ranks: several ranks need the same one. */
function bySharedHeads(context: DivisionContext, sizes: Geometry): Division[] {
  const { heads, shared } = sizes;
  const own = heads / context.ranks;
  const needsOne = shared % context.ranks !== 0 && (heads / shared) % own === 0;
  // The present keys of all heads are not made where a rank computes with one head.
  if (!needsOne || (shared > 1 && context.outputs.length > 1)) return [];
  const flat = isFlat(context);
  const local = (rank: LocalContext) => {
    const [q, k, v, mask, ...past] = rank.inputs;
    const only = (value: Value | undefined) => value && headOf(rank, value, sizes);
    const inputs = [q, only(k), only(v), mask, ...past.map(only)];
    return rank.again(inputs.slice(0, rank.inputs.length), headCounts(context, own, 1));
  };
  return cutOf(inUnits(unsectioned(context), heads), {
    own: flat ? 2 : 1,
    scores: 1,
    size: heads,
    keys: false,
    local,
  });
}

/** The one head of keys or values that the heads of Q of this rank share. */
function headOf(
  { builder, ranks, place }: LocalContext,
  value: Value,
  { heads, shared }: Geometry,
): Value {
  if (shared === 1) return value;
  const first = mul(place(), heads / ranks);
  const head = reshape(div(first, builder.scalar("int64", heads / shared)), [1]);
  if (value.shape.length === 4) return gather(value, head, 1);
  const [batch, places, width] = value.shape as unknown as [number, number, number];
  const size = width / shared;
  const parted = reshape(value, [batch, places, shared, size]);
  return reshape(gather(parted, head, 2), [batch, places, size]);
}

/**
 * Each rank has some of the queries, and all keys. Sections let a rank have early and late queries,
 * which balances the work if attention is causal.
 */
function byQueries(context: DivisionContext, sizes: Geometry): Division[] {
  const isCausal = context.attributes.number("is_causal") === 1;
  return context.proportions.flatMap((proportion) =>
    cutOf(
      { ...context, proportions: [proportion] },
      {
        own: isFlat(context) ? 1 : 2,
        scores: 2,
        size: sizes.queries,
        keys: false,
        local: isCausal
          ? (rank) => causalPart(rank, sizes, sectionSizes(sizes.queries, proportion))
          : undefined,
      },
    ),
  );
}

/** Attention of some of the queries, with a mask that says which keys they may see. */
function causalPart(
  rank: LocalContext,
  { keys }: Geometry,
  sections: readonly number[],
): readonly Value[] {
  const { builder, inputs, again } = rank;
  const past = inputs[4]?.shape[2] ?? 0;
  const total = past + keys;
  const places = placesOfPart(rank, sections);
  const last = add(reshape(places, [places.shape[0] as number, 1]), past);
  const all = Array.from({ length: total }, (_, key) => key);
  const visible = lessOrEqual(builder.constant(tensorFrom("int64", [total], all)), last);
  const [q, k, v, mask, ...others] = inputs;
  return again([q, k, v, bothMasks(mask, visible), ...others], { is_causal: 0 });
}

function bothMasks(mask: Value | undefined, visible: Value): Value {
  if (mask === undefined) return visible;
  if (mask.dtype === "bool") return and(mask, visible);
  return where(visible, mask, visible.builder.scalar(mask.dtype, Number.NEGATIVE_INFINITY));
}

/** The result is linear in the values, past ones and present ones together. */
function ofValues({ inputs, outputs }: DivisionContext): Division[] {
  return [
    divisionOf(
      inputs.map((type, at) => (type && (at === 2 || at === 5) ? "partial" : undefined)),
      outputs.map((_, at) => (at === 0 || at === 2 ? "partial" : undefined)),
    ),
  ];
}
