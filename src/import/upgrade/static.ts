/** Operators that a static graph does not need: they are constants, or they have no effect. */
import type { Value } from "../../graph/index.ts";
import {
  dtypeFromOnnx,
  elementCount,
  type Shape,
  sameShape,
  scalar,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../../tensor/index.ts";
import { type Rule, type RuleTable, rewrite } from "./rule.ts";

const constant: Rule = ({ node, builder, fail }) => {
  const [[name, given] = ["", undefined]] = Object.entries(node.attributes);
  const make = (): Tensor => {
    switch (given?.kind) {
      case "tensor":
        return given.value;
      case "float":
        return scalar("float32", given.value);
      case "int":
        return scalar("int64", given.value);
      case "floats":
        return tensorFrom("float32", [given.value.length], given.value);
      case "ints":
        return tensorFrom("int64", [given.value.length], given.value);
      case "string":
      case "strings":
      case undefined:
        return fail(`a constant of kind "${name}" is not supported`);
    }
  };
  return [builder.constant(make())];
};

/** The input itself, which may be a sequence. */
const pass: Rule = ({ node, fail }) => [node.inputs[0] ?? fail("it has no input")];

const shape: Rule = ({ input, int, builder }) => {
  const dims = input(0).shape;
  return [builder.ints(dims.slice(int("start", 0), int("end", dims.length)))];
};

const size: Rule = ({ input, builder }) => [builder.scalar("int64", elementCount(input(0).shape))];

function repeat(element: Uint8Array, count: number): Uint8Array {
  const bytes = new Uint8Array(element.byteLength * count);
  // Buffer's own fill repeats a pattern, but refuses an empty buffer.
  if (bytes.byteLength > 0) Buffer.from(bytes.buffer).fill(element);
  return bytes;
}

/** The indices of the elements that are not zero, which must be known beforehand. */
const nonZero: Rule = ({ constant: known, builder, fail }) => {
  const tensor = known(0);
  if (tensor === undefined) {
    return fail(
      "the shape of its result depends on data",
      "Export the model with boolean masks (Where) instead of indices of true elements.",
    );
  }
  const strides = tensor.shape.map((_, dim) => elementCount(tensor.shape.slice(dim + 1)));
  const found = toNumbers(tensor).flatMap((value, index) => (value === 0 ? [] : [index]));
  const rows = tensor.shape.map((extent, dim) =>
    found.map((index) => Math.floor(index / (strides[dim] as number)) % extent),
  );
  return [builder.constant(tensorFrom("int64", [rows.length, found.length], rows.flat()))];
};

const sameType: Rule = ({ node, input, int }) => {
  const to = dtypeFromOnnx(int("to", 0));
  return to === input(0).dtype && node.inputs.length === 1 ? [input(0)] : undefined;
};

/** Operators that only move elements, where they do not change the shape. */
const sameShapeRule =
  (target: (numbers: readonly number[], input: Shape) => boolean): Rule =>
  ({ node, input, constant: known }) => {
    const tensor = node.inputs[1] === undefined ? undefined : known(1);
    if (tensor === undefined) return undefined;
    return target(toNumbers(tensor), input(0).shape) ? [input(0)] : undefined;
  };

const castLike: Rule = ({ node, input, one }) => {
  const [x, like] = [input(0), input(1)];
  if (x.dtype === like.dtype) return [x];
  const { saturate } = node.attributes;
  return [
    one("Cast", [x], {
      to: onnxNumber(like),
      ...(saturate?.kind === "int" ? { saturate: saturate.value } : {}),
    }),
  ];
};

function onnxNumber(value: Value): number {
  for (let number = 1; number < 32; number++) {
    if (dtypeFromOnnx(number) === value.dtype) return number;
  }
  return 0;
}

/** In inference, or with a ratio of zero: the input, and a mask of true. */
const dropout: Rule = (context) => {
  const { node, input, builder, int, float } = context;
  const x = input(0);
  const training =
    node.opset >= 12
      ? node.inputs[2] !== undefined && context.numbers(2)[0] === 1
      : int("is_test", 1) === 0;
  const ratio =
    node.opset < 12
      ? float("ratio", 0.5)
      : node.inputs[1] === undefined
        ? 0.5
        : context.numbers(1)[0];
  if (training && ratio !== 0) return undefined;
  if ((node.outputs[1] ?? "") === "") return [x];
  const ones = repeat(Uint8Array.of(1), elementCount(x.shape));
  return [x, builder.constant({ dtype: "bool", shape: x.shape, bytes: ones })];
};

export const staticRules: RuleTable = {
  Constant: [{ rule: constant }],
  Identity: [{ rule: pass }],
  Shape: [{ rule: shape }],
  Size: [{ rule: size }],
  NonZero: [{ rule: nonZero }],
  Cast: [{ rule: sameType }],
  CastLike: [{ rule: castLike }],
  Dropout: [{ rule: dropout }],
  Reshape: [{ rule: sameShapeRule((dims, own) => sameShape(dims, own)) }],
  Expand: [
    {
      rule: sameShapeRule(
        (dims, own) =>
          dims.length <= own.length &&
          dims.every((dim, i) => dim === 1 || dim === own[own.length - dims.length + i]),
      ),
    },
  ],
  // Before version 24, an empty list of axes of Unsqueeze has no effect, as here.
  Unsqueeze: [{ rule: sameShapeRule((axes) => axes.length === 0) }],
  Scatter: [{ rule: ({ node }) => rewrite(node, { op: "ScatterElements" }) }],
};
