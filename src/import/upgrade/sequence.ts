/**
 * Sequences whose length and indices are known: they are lists during the import, and no node
 * remains of them. Exporters write `x.chunk(2, 1)` in this form, as SplitToSequence and SequenceAt.
 */

import type { Value } from "../../graph/index.ts";
import { normalizeDim } from "../../tensor/index.ts";
import type { Rule, RuleContext, RuleTable } from "./rule.ts";

/**
 * Splits into the given pieces, or into pieces of one element each, whose dim is removed unless it
 * is kept.
 */
const splitToSequence: Rule = (context) => {
  const { node, builder, input, int, one, emit, fail } = context;
  const x = input(0);
  const axis = normalizeDim(int("axis", 0), x.shape.length);
  if (axis === undefined) return fail(`axis ${int("axis", 0)} is out of range`);
  const size = x.shape[axis] as number;
  const given = node.inputs[1];
  const sizes = given === undefined ? even(size, 1) : piecesOf(context, size, given);
  if (sizes.length === 0) return fail("a split into no pieces");
  const pieces = emit("Split", [x, builder.ints(sizes)], { axis }, sizes.length);
  const drops = given === undefined && int("keepdims", 1) === 0;
  const axes = builder.ints([axis]);
  return [context.sequence(drops ? pieces.map((piece) => one("Squeeze", [piece, axes])) : pieces)];
};

/**
 * A scalar is the size of each piece, and the last piece may be smaller; a list has the size of
 * every piece.
 */
function piecesOf(context: RuleContext, size: number, given: Value): readonly number[] {
  const numbers = context.numbers(1);
  const sizes = given.shape.length === 0 ? even(size, numbers[0] ?? 0) : numbers;
  const isWhole = sizes.every((own) => Number.isSafeInteger(own) && own >= 0);
  const sum = sizes.reduce((total, own) => total + own, 0);
  return isWhole && sum === size
    ? sizes
    : context.fail(`a split of ${size} into ${numbers.join(", ")}`);
}

function even(size: number, piece: number): number[] {
  if (!(piece >= 1)) return [];
  const count = Math.ceil(size / piece);
  return Array.from({ length: count }, (_, i) => Math.min(piece, size - i * piece));
}

/**
 * The index of a position that is counted from the start or the end; `last` is the highest allowed.
 */
function place(context: RuleContext, index: number, length: number, last: number): number {
  const [position = Number.NaN] = context.numbers(index);
  const own = position < 0 ? position + length : position;
  if (Number.isInteger(own) && own >= 0 && own <= last) return own;
  return context.fail(`position ${position} of a sequence of ${length}`);
}

const at: Rule = (context) => {
  const values = context.elements(0);
  return [values[place(context, 1, values.length, values.length - 1)]];
};

const insert: Rule = (context) => {
  const values = context.elements(0);
  const { length } = values;
  const to = context.node.inputs[2] === undefined ? length : place(context, 2, length, length);
  return [context.sequence(values.toSpliced(to, 0, context.input(1)))];
};

const erase: Rule = (context) => {
  const values = context.elements(0);
  const { length } = values;
  const from =
    context.node.inputs[1] === undefined ? length - 1 : place(context, 1, length, length - 1);
  if (length === 0) return context.fail("a sequence that is empty already");
  return [context.sequence(values.toSpliced(from, 1))];
};

/** Joins the elements along an existing axis, or along a new one. */
const concat: Rule = (context) => {
  const { int, one, builder, fail } = context;
  const values = context.elements(0);
  if (values.length === 0) return fail("an empty sequence has no type");
  const axis = int("axis", 0);
  if (int("new_axis", 0) === 0) return [one("Concat", values, { axis })];
  const axes = builder.ints([axis]);
  return [
    one(
      "Concat",
      values.map((value) => one("Unsqueeze", [value, axes])),
      { axis },
    ),
  ];
};

export const sequenceRules: RuleTable = {
  SplitToSequence: [{ rule: splitToSequence }],
  SequenceConstruct: [
    {
      rule: ({ node, sequence, input }) => [sequence(node.inputs.map((_, index) => input(index)))],
    },
  ],
  SequenceEmpty: [{ rule: ({ sequence }) => [sequence([])] }],
  SequenceAt: [{ rule: at }],
  SequenceInsert: [{ rule: insert }],
  SequenceErase: [{ rule: erase }],
  SequenceLength: [
    { rule: ({ builder, elements }) => [builder.scalar("int64", elements(0).length)] },
  ],
  ConcatFromSequence: [{ rule: concat }],
};
