import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** The number of elements, as int64. */
export const sizeOf: OperatorDefinition = {
  name: "Size",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {},
  infer: () => [{ dtype: "int64", shape: [] }],
  gradient: { zero: "a size does not depend on the elements" },
  flops: noFlops,
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    return shape.flatMap((_, dim) =>
      along(context, {
        inputs: [dim],
        outputs: [undefined],
        local: ({ builder }) => [builder.scalar("int64", elementCount(shape))],
      }),
    );
  },
};
