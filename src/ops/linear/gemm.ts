import { gemm as gemmOf, mul, sumTo } from "../../functional/index.ts";
import type { AttributeReader, OperatorDefinition, Value } from "../../graph/index.ts";
import type { AxisPlacement } from "../../mesh/index.ts";
import { broadcastShapes, elementCount, sameShape } from "../../tensor/index.ts";
import { alignedDim, along, divisionOf } from "../divisions.ts";

/**
 * Y = alpha · op(A) · op(B) + beta · C, for matrices only; op optionally transposes; C broadcasts
 * to Y.
 */
export const gemm: OperatorDefinition = {
  name: "Gemm",
  inputs: [2, 3],
  outputs: [1, 1],
  attributes: {
    alpha: { kind: "float", default: 1 },
    beta: { kind: "float", default: 1 },
    transA: { kind: "int", default: 0 },
    transB: { kind: "int", default: 0 },
  },
  infer: (context) => {
    const [a, b, c] = [context.input(0), context.input(1), context.inputs[2]];
    if (a.dtype !== b.dtype || (c !== undefined && c.dtype !== a.dtype)) {
      context.failType("inputs must have one element type");
    }
    if (a.shape.length !== 2 || b.shape.length !== 2) context.fail("takes matrices");
    const { transA, transB } = transposes(context.attributes);
    const [rows, inner] = [a.shape[transA], a.shape[1 - transA]] as [number, number];
    const [other, columns] = [b.shape[transB], b.shape[1 - transB]] as [number, number];
    if (inner !== other) context.fail(`the inner sizes ${inner} and ${other} differ`);
    const shape = [rows, columns];
    if (c !== undefined && !sameShape(broadcastShapes(c.shape, shape) ?? [], shape)) {
      context.fail(`C does not broadcast to [${shape.join(", ")}]`);
    }
    return [{ dtype: a.dtype, shape }];
  },
  gradient: (context) => {
    const [a, b, c, dy] = [
      context.input(0),
      context.input(1),
      context.inputs[2],
      context.gradient(0),
    ];
    const { transA, transB } = transposes(context.attributes);
    const alpha = context.attributes.number("alpha");
    const beta = context.attributes.number("beta");
    const product = (left: Value, right: Value, transLeft: number, transRight: number) =>
      gemmOf(left, right, undefined, { alpha, transA: transLeft === 1, transB: transRight === 1 });
    const da = () => (transA === 0 ? product(dy, b, 0, 1 - transB) : product(b, dy, transB, 1));
    const db = () => (transB === 0 ? product(a, dy, 1 - transA, 0) : product(dy, a, 1, transA));
    const dc = (shape: readonly number[]) => sumTo(beta === 1 ? dy : mul(dy, beta), shape);
    return [
      context.needs(0) ? da() : undefined,
      context.needs(1) ? db() : undefined,
      c !== undefined && context.needs(2) ? dc(c.shape) : undefined,
    ];
  },
  flops: (context) => {
    const { transA } = transposes(context.attributes);
    const inner = context.input(0).shape[1 - transA] as number;
    return 2 * inner * elementCount(context.outputs[0]?.shape ?? []);
  },
  inPlace: false,
  // C would be added once for each part of the batch.
  batch: { reduces: ({ inputs }) => (inputs[2] === undefined ? "sum" : undefined) },
  // C is added once, so that of terms of a sum it must be a term, too.
  divisions: (context) => {
    const { transA, transB } = transposes(context.attributes);
    const shape = context.outputs[0]?.shape ?? [];
    const c = context.inputs[2];
    const cOf = (dim: number) => {
      return c && alignedDim(c.shape, 2, dim, shape[dim] as number);
    };
    const third = <T>(of: T) => (context.inputs.length > 2 ? [of] : []);
    const term: AxisPlacement | undefined = c === undefined ? undefined : "partial";
    const inner = along(context, {
      inputs: [1 - transA, transB, ...third(undefined)],
      outputs: ["partial"],
    });
    const terms = inner.map(({ inputs, outputs }) =>
      divisionOf([inputs[0], inputs[1], ...third(term)], outputs),
    );
    return [
      ...along(context, { inputs: [transA, undefined, ...third(cOf(0))], outputs: [0] }),
      ...along(context, { inputs: [undefined, 1 - transB, ...third(cOf(1))], outputs: [1] }),
      ...terms,
      divisionOf(["partial", undefined, ...third(term)], ["partial"]),
      divisionOf([undefined, "partial", ...third(term)], ["partial"]),
    ];
  },
};

function transposes(attributes: AttributeReader): { transA: 0 | 1; transB: 0 | 1 } {
  const flag = (name: string) => (attributes.number(name) === 0 ? 0 : 1);
  return { transA: flag("transA"), transB: flag("transB") };
}
