import type { OperatorDefinition } from "../../graph/index.ts";
import { along } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** The sizes of the dims from `start` to `end`, as int64. */
export const shapeOf: OperatorDefinition = {
  name: "Shape",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {
    start: { kind: "int", default: 0 },
    end: { kind: "int", default: null },
  },
  infer: (context) => {
    const { shape } = context.input(0);
    const end = context.attributes.has("end") ? context.attributes.number("end") : shape.length;
    return [
      {
        dtype: "int64",
        shape: [shape.slice(context.attributes.number("start"), end).length],
      },
    ];
  },
  gradient: { zero: "a shape does not depend on the elements" },
  flops: noFlops,
  inPlace: false,
  // A rank's part has other sizes, but those of the whole are known.
  divisions: (context) => {
    const { shape } = context.input(0);
    const end = context.attributes.has("end") ? context.attributes.number("end") : shape.length;
    const sizes = shape.slice(context.attributes.number("start"), end);
    return shape.flatMap((_, dim) =>
      along(context, {
        inputs: [dim],
        outputs: [undefined],
        local: ({ builder }) => [builder.ints(sizes)],
      }),
    );
  },
};
