/**
 * Sums over the parts of a batch under linear operators: they may be scaled, and added to each
 * other and to values that are the same in all parts.
 */
import { mul } from "../../functional/index.ts";
import type { BatchRule, Value } from "../../graph/index.ts";
import { isFloat, type Tensor, toNumbers } from "../../tensor/index.ts";
import { type Kind, type Pair, type PartSum, type Reading, TOTAL } from "./batch-kind.ts";

export interface LinearContext {
  /** The samples of a part divided by the samples of the batch. */
  readonly share: number;
  /**
   * Whether the model has one size only, so that a constant may or may not depend on the size of
   * the batch.
   */
  readonly isFixed: boolean;
  kindOf(pair: Pair): Kind;
  /** Whether a fixed value is made of constants that depend on the size of the batch. */
  isSized(pair: Pair): boolean;
}

/** The kind of the output of a node whose inputs are sums, totals and fixed values. */
export function linearKind(
  context: LinearContext,
  linear: BatchRule["linear"],
  { node, inputs }: Reading,
  result: Pair,
): Kind {
  if (linear === undefined || !isFloat(result.part.dtype)) return TOTAL;
  const present = inputs.filter((input) => input !== undefined);
  if (linear === "together") {
    const sums = present.map((input) => asSum(context, input));
    const isSum = sums.every((sum) => sum !== undefined);
    return isSum ? added(context, result, present, sums) : TOTAL;
  }
  const own = present.filter((input) => context.kindOf(input).kind !== "fixed");
  const [first] = own;
  if (first === undefined || own.length > 1) return TOTAL;
  if (linear === "first" && first !== present[0]) return TOTAL;
  const sum = context.kindOf(first);
  if (sum.kind !== "sum") return TOTAL;
  const others = present.filter((input) => input !== first);
  const isClear = !context.isFixed || sum.factor === context.share;
  if (!isClear && others.some((input) => isFloat(input.part.dtype))) {
    const reason = `the model has a fixed batch, and "${node.name}" (${node.op}) may divide by it`;
    return { kind: "mixed", reason };
  }
  const ratios = others.map((input) => ratioOf(context, input));
  if (!ratios.every((ratio) => ratio !== undefined)) return TOTAL;
  const ratio = ratios.reduce((product, one) => product * one, 1);
  const factor = exact(context, sum.factor * (linear === "each" ? ratio : 1 / ratio));
  return { kind: "sum", factor, part: again(result, [first], [sum.part]) };
}

/**
 * A value that is the same in all parts counts once, as the mean over the parts. Other sums are
 * converted to that form.
 */
function added(
  { share }: LinearContext,
  result: Pair,
  inputs: readonly Pair[],
  sums: readonly PartSum[],
): Kind {
  const isShared = sums.some((sum) => sum.factor === share);
  const factor = isShared ? share : (sums[0]?.factor ?? 1);
  const values = sums.map((sum) =>
    sum.factor === factor ? sum.part : mul(sum.part, sum.factor / factor),
  );
  return { kind: "sum", factor, part: again(result, inputs, values) };
}

/**
 * The value computed by the same node from other inputs; the value itself if the inputs are its
 * own.
 */
function again({ part }: Pair, inputs: readonly Pair[], values: readonly Value[]): Value {
  const { builder } = part;
  const node = builder.makerOf(part);
  const others = new Map(inputs.map((input, index) => [input.part.name, values[index] as Value]));
  const isSame = [...others].every(([name, value]) => value.name === name);
  if (node === undefined || isSame) return part;
  const all = node.inputs.map((name) =>
    name === "" ? undefined : (others.get(name) ?? builder.value(name)),
  );
  const name = `${node.name}/part`;
  return builder.append(node.op, name, all, node.attributes, [name])[0] as Value;
}

function asSum(context: LinearContext, pair: Pair): PartSum | undefined {
  const kind = context.kindOf(pair);
  if (kind.kind === "sum") return kind;
  if (kind.kind !== "fixed" || !isFloat(pair.part.dtype)) return undefined;
  const ratio = ratioOf(context, pair);
  return ratio === undefined ? undefined : { factor: context.share * ratio, part: pair.part };
}

/**
 * A fixed value of the whole divided by that of a part; undefined if the quotient is not one
 * number.
 */
function ratioOf(context: LinearContext, pair: Pair): number | undefined {
  if (!context.isSized(pair)) return 1;
  const [own, other] = [
    pair.part.builder.constantOf(pair.part),
    pair.whole.builder.constantOf(pair.whole),
  ];
  return own === undefined || other === undefined ? undefined : quotientOf(own, other);
}

/** The number by which all elements differ; undefined if there is no such number. */
function quotientOf(part: Tensor, whole: Tensor): number | undefined {
  const other = toNumbers(whole);
  const ratios = toNumbers(part).map((value, index) => {
    return value === other[index] ? 1 : (other[index] as number) / value;
  });
  const [first = 1] = ratios;
  return Number.isFinite(first) && ratios.every((ratio) => ratio === first) ? first : undefined;
}

/** The factor without the rounding error of the constants that it was computed from. */
function exact({ share }: LinearContext, factor: number): number {
  return [1, share].find((value) => Math.abs(factor / value - 1) < 1e-6) ?? factor;
}
