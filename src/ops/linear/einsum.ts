import { expand, reshape, sumTo } from "../../functional/index.ts";
import type { Division, DivisionContext, OperatorDefinition, Value } from "../../graph/index.ts";
import { elementCount, isFloat, type Shape } from "../../tensor/index.ts";
import { along, linearDivisions } from "../divisions.ts";
import { type Labels, parseEquation, type Terms } from "./equation.ts";

/**
 * Einstein's sum over any number of operands. Ellipses and implicit results are supported; a label
 * that occurs twice in one operand (a diagonal) is refused.
 */
export const einsum: OperatorDefinition = {
  name: "Einsum",
  inputs: [1, Number.MAX_SAFE_INTEGER],
  outputs: [1, 1],
  attributes: { equation: { kind: "string" } },
  infer: (context) => {
    const types = context.inputs.map((_, index) => context.input(index));
    const { dtype } = context.input(0);
    if (types.some((type) => type.dtype !== dtype)) {
      context.failType("inputs must have one element type");
    }
    const shapes = types.map((type) => type.shape);
    const terms = parseEquation(context.attributes.string("equation"), shapes);
    if (typeof terms === "string") return context.fail(terms);
    const sizes = sizesOf(terms, shapes);
    return [{ dtype, shape: terms.result.map((label) => sizes.get(label) as number) }];
  },
  gradient: (context) => {
    const inputs = context.inputs.map((_, index) => context.input(index));
    const shapes = inputs.map((input) => input.shape);
    const terms = parseEquation(context.attributes.string("equation"), shapes) as Terms;
    return inputs.map((_, index) =>
      context.needs(index) ? operandGradient(context.gradient(0), inputs, terms, index) : undefined,
    );
  },
  flops: (context) => {
    const shapes = context.inputs.map((_, index) => context.input(index).shape);
    const terms = parseEquation(context.attributes.string("equation"), shapes) as Terms;
    return Math.max(1, shapes.length) * elementCount([...sizesOf(terms, shapes).values()]);
  },
  inPlace: false,
  batch: { reduces: "sum" },
  divisions: einsumDivisions,
};

/** Any label can be cut: one that is not in the result leaves terms of a sum. */
function einsumDivisions(context: DivisionContext): Division[] {
  const shapes = context.inputs.map((_, index) => context.input(index).shape);
  const terms = parseEquation(context.attributes.string("equation"), shapes) as Terms;
  // Integers are not summed.
  const sums = isFloat(context.input(0).dtype);
  const cuts = [...sizesOf(terms, shapes)].flatMap(([label, size]) => {
    const made = terms.result.indexOf(label);
    if (made < 0 && !sums) return [];
    // Under an ellipsis, a dim of size 1 broadcasts.
    const inputs = terms.operands.map((labels, index) => {
      const dim = labels.indexOf(label);
      return shapes[index]?.[dim] === size ? dim : undefined;
    });
    return along(context, { inputs, outputs: [made < 0 ? "partial" : made] });
  });
  return [...cuts, ...(sums ? linearDivisions(context, "each") : [])];
}

/** The size of each label. Under an ellipsis, a size of 1 broadcasts to another size. */
function sizesOf({ operands }: Terms, shapes: readonly Shape[]): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [index, labels] of operands.entries()) {
    for (const [dim, label] of labels.entries()) {
      const size = shapes[index]?.[dim] as number;
      if ((sizes.get(label) ?? 1) === 1) sizes.set(label, size);
    }
  }
  return sizes;
}

/**
 * The gradient of an operand: the sum of the product of dy and the other operands over all labels
 * except this operand's own. Labels that only this operand has were summed over: the gradient is
 * the same for all their positions.
 */
function operandGradient(dy: Value, inputs: readonly Value[], terms: Terms, index: number): Value {
  const own = terms.operands[index] as Labels;
  const shape = (inputs[index] as Value).shape;
  const sizes = sizesOf(
    terms,
    inputs.map((input) => input.shape),
  );
  const others = inputs.flatMap((input, i) =>
    i === index ? [] : [{ input, labels: terms.operands[i] as Labels }],
  );
  const known = new Set([...terms.result, ...others.flatMap(({ labels }) => labels)]);
  const reached = own.filter((label) => known.has(label));
  const letters = lettersFor([...known]);
  const write = (labels: Labels) => labels.map((label) => letters.get(label)).join("");
  const left = [terms.result, ...others.map(({ labels }) => labels)].map(write).join(",");
  // Under an ellipsis, a dim of size 1 may meet a larger one: each operand is expanded to the sizes
  // of its labels.
  const grown = others.map(({ input, labels }) =>
    expand(
      input,
      labels.map((label) => sizes.get(label) as number),
    ),
  );
  const product = dy.builder.one("Einsum", [dy, ...grown], {
    equation: `${left}->${write(reached)}`,
  });
  const kept = own.map((label) => (known.has(label) ? (sizes.get(label) as number) : 1));
  return sumTo(
    expand(
      reshape(product, kept),
      own.map((label, dim) =>
        known.has(label) ? (sizes.get(label) as number) : (shape[dim] as number),
      ),
    ),
    shape,
  );
}

/** A letter for each label, because the labels of an ellipsis are not letters. */
function lettersFor(labels: readonly string[]): Map<string, string> {
  const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".split("");
  const free = alphabet.filter((letter) => !labels.includes(letter));
  return new Map(
    labels.map((label) => [label, label.length === 1 ? label : (free.pop() as string)]),
  );
}
