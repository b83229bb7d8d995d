import { concat, pad } from "../../functional/index.ts";
import type { InferContext, OperatorDefinition } from "../../graph/index.ts";
import { normalizeDim } from "../../tensor/index.ts";
import { along, divisionOf, linearDivisions } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/**
 * Pieces along `axis`: of the sizes in input 1, or `num_outputs` equal ones (the last may be
 * smaller).
 */
export const split: OperatorDefinition = {
  name: "Split",
  inputs: [1, 2],
  outputs: [1, Infinity],
  attributes: {
    axis: { kind: "int", default: 0 },
    num_outputs: { kind: "int", default: null },
  },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const given = context.attributes.number("axis");
    const axis = normalizeDim(given, shape.length);
    if (axis === undefined) return context.fail(`axis ${given} is out of range`);
    const total = shape[axis] as number;
    const sizes = pieces(context, total);
    if (sizes.length !== context.outputCount || sizes.reduce((a, b) => a + b, 0) !== total) {
      context.fail(
        `pieces of [${sizes.join(", ")}] do not make ${context.outputCount} outputs of dim ${axis}`,
      );
    }
    return sizes.map((size) => ({ dtype, shape: shape.with(axis, size) }));
  },
  gradient: (context) => {
    const x = context.input(0);
    const axis = normalizeDim(context.attributes.number("axis"), x.shape.length) as number;
    const reached = context.gradients.flatMap((gradient, index) => (gradient ? [index] : []));
    if (reached.length > 1 || context.gradients.length === 1) {
      const gradients = context.gradients.map((_, index) => context.gradient(index));
      return [concat(gradients, axis), undefined];
    }
    // If only one piece reaches the loss, its gradient is padded with zeros.
    const only = reached[0] ?? 0;
    const size = (index: number) => context.output(index).shape[axis] as number;
    let start = 0;
    for (let index = 0; index < only; index++) start += size(index);
    const zeros = x.shape.map(() => 0);
    const after = (x.shape[axis] as number) - start - size(only);
    return [
      pad(context.gradient(only), zeros.with(axis, start), zeros.with(axis, after)),
      undefined,
    ];
  },
  flops: noFlops,
  moves: true,
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    const axis = normalizeDim(context.attributes.number("axis"), shape.length) as number;
    const others = context.inputs.slice(1).map(() => undefined);
    const across = shape.flatMap((_, dim) =>
      dim === axis
        ? []
        : along(context, { inputs: [dim, ...others], outputs: context.outputs.map(() => dim) }),
    );
    const sections = context.outputs.map((piece) => piece.shape[axis] as number);
    const isEven = sections.every((size) => size > 0 && size % context.ranks === 0);
    const cut = divisionOf(
      [{ shard: axis, sections }, ...others],
      sections.map(() => ({ shard: axis })),
      ({ builder, input, outputs }) => {
        const sizes = builder.ints(outputs.map((piece) => piece.shape[axis] as number));
        return builder.emit("Split", [input(0), sizes], { axis }, { outputs: outputs.length });
      },
    );
    return [...across, ...(isEven ? [cut] : []), ...linearDivisions(context, "first")];
  },
};

function pieces(context: InferContext, total: number): number[] {
  if (context.inputs[1] !== undefined) return context.constantNumbers(1);
  const count = context.attributes.has("num_outputs")
    ? context.attributes.number("num_outputs")
    : context.outputCount;
  const size = Math.ceil(total / count);
  return Array.from({ length: count }, (_, i) => Math.min(size, total - i * size));
}
