import { neg } from "../../functional/index.ts";
import type { Division, DivisionContext, OperatorDefinition } from "../../graph/index.ts";
import { along, linearDivisions } from "../divisions.ts";
import { inUnits } from "../parts.ts";
import { floatType, flopsPerElement, noGradient } from "../shared.ts";

/**
 * Rotates pairs of elements of X, (B, heads, T, size) or (B, T, heads · size), by angles that
 * depend on the position (Su et al. 2021). The cosines and sines are (B, T, pairs), or (positions,
 * pairs) with position ids (B, T) as input 3.
 */
export const rotaryEmbedding: OperatorDefinition = {
  name: "RotaryEmbedding",
  inputs: [3, 4],
  outputs: [1, 1],
  attributes: {
    interleaved: { kind: "int", default: 0 },
    num_heads: { kind: "int", default: 0 },
    rotary_embedding_dim: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const type = floatType(context);
    const { shape } = type;
    const heads = context.attributes.number("num_heads");
    if (shape.length !== 4 && !(shape.length === 3 && heads > 0)) {
      context.fail("takes (B, heads, T, size), or (B, T, heads · size) with num_heads");
    }
    const size = shape.length === 4 ? (shape[3] as number) : (shape[2] as number) / heads;
    const turned = context.attributes.number("rotary_embedding_dim") || size;
    for (const index of [1, 2]) {
      const table = context.input(index).shape;
      const dims = context.inputs[3] === undefined ? 3 : 2;
      if (table.length !== dims || table.at(-1) !== turned / 2) {
        context.fail(`input ${index} must have ${dims} dims, the last of size ${turned / 2}`);
      }
    }
    return [type];
  },
  // The transpose of a rotation is the rotation back.
  gradient: (context) => {
    if (context.needs(1) || context.needs(2)) {
      noGradient(context, "for its cosines and sines", "Keep these tables constant.");
    }
    const [cosines, sines, positions] = [context.input(1), context.input(2), context.inputs[3]];
    const inputs = [context.gradient(0), cosines, neg(sines)];
    const { attributes } = context;
    return [
      context.builder.one(
        "RotaryEmbedding",
        positions === undefined ? inputs : [...inputs, positions],
        {
          interleaved: attributes.number("interleaved"),
          num_heads: attributes.number("num_heads"),
          rotary_embedding_dim: attributes.number("rotary_embedding_dim"),
        },
      ),
    ];
  },
  flops: flopsPerElement(3),
  inPlace: false,
  divisions: rotaryDivisions,
};

/** By samples, by heads, and by positions, whose angles are cut with them. */
function rotaryDivisions(context: DivisionContext): Division[] {
  const { shape } = context.input(0);
  const isFlat = shape.length === 3;
  const [heads, headDim] = isFlat
    ? [context.attributes.number("num_heads"), 2]
    : [shape[1] as number, 1];
  const placeDim = shape.length - 2;
  const [batch, places] = [shape[0] as number, shape[placeDim] as number];
  const others = context.inputs.slice(1).map(() => undefined);
  const byHeads = along(inUnits(context, heads), {
    inputs: [headDim, ...others],
    outputs: [headDim],
    ...(isFlat && {
      local: ({ inputs, again, ranks }) => again(inputs, { num_heads: heads / ranks }),
    }),
  });
  return [
    ...byAngles(context, 0, 0, batch),
    ...byHeads,
    ...byAngles(context, placeDim, 1, places),
    ...linearDivisions(context, "first"),
  ];
}

/**
 * Cuts dim `own` of X, of a size, and with it dim `dim` of what has an angle for each sample and
 * position: the position ids or, without them, the tables.
 */
function byAngles(context: DivisionContext, own: number, dim: number, size: number): Division[] {
  const angles = context.inputs[3] === undefined ? [1, 2] : [3];
  // Tables of one sample are those of all samples.
  const isShared = (index: number) =>
    dim === 0 && index !== 3 && context.input(index).shape[0] === 1;
  if (!angles.every((index) => isShared(index) || context.input(index).shape[dim] === size)) {
    return [];
  }
  const inputs = context.inputs.map((_, index) => {
    if (index === 0) return own;
    return angles.includes(index) && !isShared(index) ? dim : undefined;
  });
  return along(context, { inputs, outputs: [own] });
}
