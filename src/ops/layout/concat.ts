import { slice } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { normalizeDim } from "../../tensor/index.ts";
import { along, divisionOf } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** The concatenation of the inputs along `axis`. */
export const concat: OperatorDefinition = {
  name: "Concat",
  inputs: [1, Infinity],
  outputs: [1, 1],
  attributes: { axis: { kind: "int" } },
  infer: (context) => {
    const first = context.input(0);
    const given = context.attributes.number("axis");
    const axis = normalizeDim(given, first.shape.length);
    if (axis === undefined) return context.fail(`axis ${given} is out of range`);
    let total = 0;
    for (const index of context.inputs.keys()) {
      const { dtype, shape } = context.input(index);
      if (dtype !== first.dtype) context.failType("inputs must have one element type");
      const agree = shape.every((size, dim) => dim === axis || size === first.shape[dim]);
      if (shape.length !== first.shape.length || !agree) {
        context.fail(`inputs must agree in all dims but ${axis}`);
      }
      total += shape[axis] as number;
    }
    return [{ dtype: first.dtype, shape: first.shape.with(axis, total) }];
  },
  gradient: (context) => {
    const dy = context.gradient(0);
    const axis = normalizeDim(context.attributes.number("axis"), dy.shape.length) as number;
    let end = 0;
    return context.inputs.map((_, index) => {
      const start = end;
      end += context.input(index).shape[axis] as number;
      return context.needs(index) ? slice(dy, [{ axis, start, end }]) : undefined;
    });
  },
  flops: noFlops,
  moves: true,
  inPlace: false,
  batch: { linear: "together" },
  divisions: (context) => {
    const shape = context.outputs[0]?.shape ?? [];
    const axis = normalizeDim(context.attributes.number("axis"), shape.length) as number;
    const across = shape.flatMap((_, dim) =>
      dim === axis ? [] : along(context, { inputs: context.inputs.map(() => dim), outputs: [dim] }),
    );
    const sections = context.inputs.map((piece) => piece?.shape[axis] ?? 0);
    const isEven = sections.every((size) => size > 0 && size % context.ranks === 0);
    const cut = divisionOf(
      sections.map(() => ({ shard: axis })),
      [sections.length === 1 ? { shard: axis } : { shard: axis, sections }],
    );
    return isEven ? [...across, cut] : across;
  },
};
