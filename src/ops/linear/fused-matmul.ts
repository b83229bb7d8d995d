import { sumTo, transpose } from "../../functional/index.ts";
import type { AttributeReader, OperatorDefinition, Value } from "../../graph/index.ts";
import { broadcastShapes, elementCount, type Shape } from "../../tensor/index.ts";
import { alignedDim, along, linearDivisions } from "../divisions.ts";

/**
 * alpha · op(A) · op(B), an operator of ONNX Runtime. op swaps the last two dims (transA, transB),
 * or moves the first batch dim behind the other batch dims (transBatchA, transBatchB).
 */
export const fusedMatmul: OperatorDefinition = {
  name: "com.microsoft::FusedMatMul",
  inputs: [2, 2],
  outputs: [1, 1],
  attributes: {
    alpha: { kind: "float", default: 1 },
    transA: { kind: "int", default: 0 },
    transB: { kind: "int", default: 0 },
    transBatchA: { kind: "int", default: 0 },
    transBatchB: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const [a, b] = [context.input(0), context.input(1)];
    if (a.dtype !== b.dtype) context.failType("both inputs must have one element type");
    if (a.shape.length < 2 || b.shape.length < 2) context.fail("takes no vectors");
    const left = permuted(a.shape, context.attributes, "A");
    const right = permuted(b.shape, context.attributes, "B");
    const batch = broadcastShapes(left.slice(0, -2), right.slice(0, -2));
    if (batch === undefined) return context.fail("leading dims do not broadcast");
    if (left.at(-1) !== right.at(-2)) {
      context.fail(`the inner sizes ${left.at(-1)} and ${right.at(-2)} differ`);
    }
    return [{ dtype: a.dtype, shape: [...batch, left.at(-2) as number, right.at(-1) as number] }];
  },
  // With a, b after their transpositions: da = alpha · dc · bᵀ and db = alpha · aᵀ · dc.
  gradient: (context) => {
    const { attributes } = context;
    const [a, b, dc] = [context.input(0), context.input(1), context.gradient(0)];
    const alpha = attributes.number("alpha");
    const product = (x: Value, y: Value, transA: boolean, transB: boolean) =>
      context.builder.one("com.microsoft::FusedMatMul", [x, y], { alpha, transA, transB });
    const plain = (x: Value, side: Side) =>
      isBatched(attributes, side) ? transpose(x, permutation(x.shape.length, attributes, side)) : x;
    const swapped = (side: Side) =>
      flag(attributes, `trans${side}`) && !isBatched(attributes, side);
    const back = (gradient: Value, input: Value, side: Side) => {
      if (!isBatched(attributes, side)) return sumTo(gradient, input.shape);
      const order = permutation(input.shape.length, attributes, side);
      const inverse = order.map((_, dim) => order.indexOf(dim));
      const shape = order.map((dim) => input.shape[dim] as number);
      return transpose(sumTo(gradient, shape), inverse);
    };
    const [pa, pb] = [plain(a, "A"), plain(b, "B")];
    const [ta, tb] = [swapped("A"), swapped("B")];
    return [
      context.needs(0)
        ? back(ta ? product(pb, dc, tb, true) : product(dc, pb, false, !tb), a, "A")
        : undefined,
      context.needs(1)
        ? back(tb ? product(dc, pa, true, ta) : product(pa, dc, !ta, false), b, "B")
        : undefined,
    ];
  },
  flops: (context) => {
    const inner = permuted(context.input(0).shape, context.attributes, "A").at(-1) as number;
    return 2 * inner * elementCount(context.outputs[0]?.shape ?? []);
  },
  inPlace: false,
  within: "matrices",
  divisions: (context) => {
    const shape = context.outputs[0]?.shape ?? [];
    const operand = (side: Side, of: Shape): Operand => {
      const order = permutation(of.length, context.attributes, side);
      return { order, shape: order.map((dim) => of[dim] as number) };
    };
    const a = operand("A", context.input(0).shape);
    const b = operand("B", context.input(1).shape);
    const leading = shape.length - 2;
    const ofBatch = ({ order, shape: own }: Operand, dim: number) => {
      const at = alignedDim(own.slice(0, -2), leading, dim, shape[dim] as number);
      return at === undefined ? undefined : order[at];
    };
    const batches = Array.from({ length: leading }, (_, dim) =>
      along(context, { inputs: [ofBatch(a, dim), ofBatch(b, dim)], outputs: [dim] }),
    );
    return [
      ...batches.flat(),
      ...along(context, { inputs: [a.order.at(-2), undefined], outputs: [leading] }),
      ...along(context, { inputs: [undefined, b.order.at(-1)], outputs: [leading + 1] }),
      ...along(context, { inputs: [a.order.at(-1), b.order.at(-2)], outputs: ["partial"] }),
      ...linearDivisions(context, "each"),
    ];
  },
};

/** An operand as it is multiplied: where each dim comes from. */
interface Operand {
  readonly order: readonly number[];
  readonly shape: Shape;
}

type Side = "A" | "B";

function flag(attributes: AttributeReader, name: string): boolean {
  return attributes.number(name) !== 0;
}

function isBatched(attributes: AttributeReader, side: Side): boolean {
  return flag(attributes, `transBatch${side}`);
}

/** For each dim of the multiplied matrices, the dim of the operand that it comes from. */
function permutation(rank: number, attributes: AttributeReader, side: Side): number[] {
  const order = Array.from({ length: rank }, (_, dim) => dim);
  const moved = isBatched(attributes, side) ? [...order.slice(1, -1), 0, rank - 1] : order;
  if (!flag(attributes, `trans${side}`)) return moved;
  return [...moved.slice(0, -2), moved[rank - 1] as number, moved[rank - 2] as number];
}

function permuted(shape: Shape, attributes: AttributeReader, side: Side): number[] {
  return permutation(shape.length, attributes, side).map((dim) => shape[dim] as number);
}
