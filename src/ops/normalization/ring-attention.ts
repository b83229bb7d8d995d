/**
 * Attention that needs no whole rows of scores, so that ranks can have parts of the keys. It is made
 * in place of attention that a model writes out (`plan/attentions.ts`), and written out again for
 * engines, which do not know it.
 */
import type {
  CostContext,
  Division,
  DivisionContext,
  GradientContext,
  InferContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { broadcastShapes, byteLength, elementCount, sameShape } from "../../tensor/index.ts";
import { alignedDim, along, sectionSizes } from "../divisions.ts";
import { floatType, noGradient } from "../shared.ts";
import { ownSections, type RingOptions, ringOfOne } from "./ring-blocks.ts";
import { ringAttention as computed, ringGradient } from "./ring-steps.ts";

const ATTRIBUTES: OperatorDefinition["attributes"] = {
  scale: { kind: "float", default: 1 },
  causal: { kind: "int", default: 0 },
};

/** Checks q, k, v and the mask, which is input `mask`. */
function checkParts(context: InferContext, mask: number): void {
  const { shape: q } = floatType(context);
  const [k, v] = [context.input(1).shape, context.input(2).shape];
  const lead = (shape: readonly number[]) => shape.slice(0, -2);
  const isBroadcast = (shape: readonly number[]) =>
    shape.length === q.length && sameShape(broadcastShapes(lead(shape), lead(q)) ?? [], lead(q));
  if (q.length < 3 || !isBroadcast(k) || !sameShape(lead(k), lead(v))) {
    context.fail("queries, keys and values have other leading dims");
  }
  const [length, keys] = [q.at(-2), k.at(-2)];
  if (q.at(-1) !== k.at(-1) || keys !== v.at(-2)) context.fail("their sizes do not fit");
  if (context.attributes.number("causal") === 1 && length !== keys) {
    context.fail(`a causal mask needs as many keys as queries, not ${keys} and ${length}`);
  }
  const added = context.inputs[mask]?.shape ?? [];
  const scores = q.with(-1, keys as number);
  if (!sameShape(broadcastShapes(added, scores) ?? [], scores))
    context.fail("the mask does not fit");
}

/** For each score: what is done to it beside the products. */
const FLOPS_OF_SCORE = 8;

/** The operations of products of the size of the scores, as if no key was hidden. */
function flopsOfScores(context: CostContext, products: (size: number, values: number) => number) {
  const q = context.input(0).shape;
  const [keys, values] = [context.input(1).shape.at(-2), context.input(2).shape.at(-1)];
  const scores = elementCount(q.with(-1, keys as number));
  return scores * (2 * products(q.at(-1) as number, values as number) + FLOPS_OF_SCORE);
}

/**
 * softmax(scale · q · kᵀ + mask) · v of q (…, length, size), k and v (…, keys, size), whose leading
 * dims may be 1 where heads share them. Inputs: q, k, v, mask. Outputs: the result, and for each row
 * of scores the logarithm of the sum of its exponentials (…, length, 1).
 */
export const ringAttention: OperatorDefinition = {
  name: "lockstep::RingAttention",
  inputs: [3, 4],
  outputs: [2, 2],
  attributes: ATTRIBUTES,
  infer: (context) => {
    checkParts(context, 3);
    const { dtype, shape } = context.input(0);
    const size = context.input(2).shape.at(-1) as number;
    return [
      { dtype, shape: shape.with(-1, size) },
      { dtype, shape: shape.with(-1, 1) },
    ];
  },
  gradient: (context) => {
    refuseOthers(context);
    const [q, k, v, mask] = context.inputs;
    const inputs = [q, k, v, context.output(0), context.output(1), context.gradient(0)];
    return context.builder.emit(
      "lockstep::RingAttentionGradient",
      mask === undefined ? inputs : [...inputs, mask],
      {
        scale: context.attributes.number("scale"),
        causal: context.attributes.number("causal"),
      },
    );
  },
  flops: (context) => flopsOfScores(context, (size, values) => size + values),
  inPlace: false,
  written: ({ builder, attributes, inputs, input }) => {
    const parts = { q: input(0), k: input(1), v: input(2), mask: inputs[3] };
    return computed(parts, {
      ...numbersOf(attributes),
      ring: ringOfOne(builder),
      sections: ownSections(parts.k.shape.at(-2) as number),
    });
  },
  divisions: (context) =>
    byKeys(
      context,
      { mask: 3, byQuery: [0], byKey: [1, 2], made: ["query", "query"] },
      (rank, own) =>
        computed(
          { q: rank.input(0), k: rank.input(1), v: rank.input(2), mask: rank.inputs[3] },
          own,
        ),
    ),
};

function refuseOthers(context: GradientContext): void {
  if (context.needs(3)) noGradient(context, "of its mask", "Use attention that is written out.");
  if (context.gradients[1] !== undefined) {
    noGradient(context, "of its sums of exponentials", "Use attention that is written out.");
  }
}

/** Inputs: q, k, v, both results, the gradient of the first one, mask. Outputs: of q, k and v. */
export const ringAttentionGradient: OperatorDefinition = {
  name: "lockstep::RingAttentionGradient",
  inputs: [6, 7],
  outputs: [3, 3],
  attributes: ATTRIBUTES,
  infer: (context) => {
    checkParts(context, 6);
    return [context.input(0), context.input(1), context.input(2)];
  },
  gradient: { missing: "attention in a ring is differentiated once; leave out attention: ring" },
  flops: (context) => flopsOfScores(context, (size, values) => 3 * size + 2 * values),
  inPlace: false,
  written: ({ builder, attributes, inputs, input }) => {
    const [q, k, v, y, sums, dy] = [0, 1, 2, 3, 4, 5].map(input) as [
      Value,
      Value,
      Value,
      Value,
      Value,
      Value,
    ];
    return ringGradient(
      { q, k, v, y, sums, dy, mask: inputs[6] },
      {
        ...numbersOf(attributes),
        ring: ringOfOne(builder),
        sections: ownSections(k.shape.at(-2) as number),
      },
    );
  },
  divisions: (context) =>
    byKeys(
      context,
      { mask: 6, byQuery: [0, 3, 4, 5], byKey: [1, 2], made: ["query", "key", "key"] },
      ({ input, inputs }, own) =>
        ringGradient(
          {
            q: input(0),
            k: input(1),
            v: input(2),
            y: input(3),
            sums: input(4),
            dy: input(5),
            mask: inputs[6],
          },
          own,
        ),
    ),
};

function numbersOf(attributes: LocalContext["attributes"]) {
  return { scale: attributes.number("scale"), causal: attributes.number("causal") === 1 };
}

interface Sides {
  readonly mask: number;
  /** The inputs that are cut with the queries, and with the keys. */
  readonly byQuery: readonly number[];
  readonly byKey: readonly number[];
  readonly made: readonly ("query" | "key")[];
}

/** Each rank has some of the queries, and some of the keys, which go round. */
function byKeys(
  context: DivisionContext,
  { mask, byQuery, byKey, made }: Sides,
  compute: (rank: LocalContext, options: RingOptions) => readonly Value[],
): Division[] {
  const q = context.input(0).shape;
  const [rank, length] = [q.length, q.at(-2) as number];
  const keys = context.input(1).shape.at(-2) as number;
  const isCausal = context.attributes.number("causal") === 1;
  const added = context.inputs[mask]?.shape;
  const maskRows = alignedDim(added, rank, rank - 2, length);
  // A mask that differs between queries has whole rows on each rank.
  const maskDim = maskRows ?? alignedDim(added, rank, rank - 1, keys);
  const inputs = context.inputs.map((_, at) => {
    if (at === mask) return maskDim;
    return byQuery.includes(at) || byKey.includes(at) ? rank - 2 : undefined;
  });
  const moved = byKey.reduce((sum, at) => sum + byteLength(context.input(at)), 0);
  return context.proportions.flatMap((proportion) => {
    // Each section of queries sees whole sections of keys, and its own in part.
    if (isCausal && new Set(proportion).size > 1) return [];
    const sections = sectionSizes(keys, proportion);
    return along(
      { ...context, proportions: [proportion] },
      {
        inputs,
        outputs: made.map(() => rank - 2),
        local: (own) => compute(own, { ...numbersOf(own.attributes), ring: own, sections }),
      },
    ).map((division) => ({ ...division, exchanged: made.length === 2 ? moved : 2 * moved }));
  });
}
