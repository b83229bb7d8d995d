import {
  cast,
  div,
  equal,
  gatherElements,
  mul,
  pad,
  scatterElements as scatter,
  slice,
  where,
  zerosLike,
} from "../../functional/index.ts";
import type {
  GradientContext,
  LocalContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along, divisionOf, sectionedDim, sectionedWays } from "../divisions.ts";
import { orBehind, orFirst, ownIndices } from "./own-part.ts";
import {
  alongAxis,
  axisOf,
  checkIndices,
  checkReduction,
  dimOf,
  picksAlongAxis,
  productGradient,
  REDUCTION,
} from "./shared.ts";

/**
 * Input 0 with each element of input 2 at its own position, but at the index in input 1 along
 * `axis`. It replaces the element that is there (indices must then not repeat) or is combined with
 * it.
 */
export const scatterElements: OperatorDefinition = {
  name: "ScatterElements",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: { axis: { kind: "int", default: 0 }, reduction: REDUCTION },
  infer: (context) => {
    const type = context.input(0);
    const indices = checkIndices(context, 1);
    const updates = context.input(2);
    checkReduction(context);
    const axis = axisOf(context, type.shape);
    if (updates.dtype !== type.dtype) context.failType("updates have the data's element type");
    const fits = indices.every((size, dim) => dim === axis || size <= (type.shape[dim] ?? 0));
    const same = indices.every((size, dim) => size === updates.shape[dim]);
    if (indices.length !== type.shape.length || !fits || !same) {
      context.fail("indices and updates have one shape, as many dims as the data and none longer");
    }
    return [type];
  },
  gradient: (context) => {
    const [x, indices, updates] = [context.input(0), context.input(1), context.input(2)];
    const dy = context.gradient(0);
    const axis = dimOf(context, x.shape);
    switch (context.attributes.string("reduction")) {
      case "none":
        return [
          context.needs(0) ? scatter(dy, indices, zerosLike(updates), axis) : undefined,
          undefined,
          context.needs(2) ? gatherElements(dy, indices, axis) : undefined,
        ];
      case "add":
        return [dy, undefined, context.needs(2) ? gatherElements(dy, indices, axis) : undefined];
      case "mul":
        return productGradient(
          context,
          (to, from, reduction) => scatter(to, indices, from, axis, reduction),
          (from) => gatherElements(from, indices, axis),
        );
      default:
        return extremeGradient(context, axis);
    }
  },
  flops: (context) => elementCount(context.input(2).shape),
  // Gather and scatter of PyTorch and other frameworks refuse negative indices.
  indices: (context) => alongAxis(context, false),
  inPlace: false,
  batch: { picks: picksAlongAxis },
  divisions: (context) => {
    const [shape, indices] = [context.input(0).shape, context.input(1).shape];
    const axis = axisOf(context, shape);
    const reduction = context.attributes.string("reduction");
    const others = shape.flatMap((size, dim) =>
      dim === axis || indices[dim] !== size
        ? []
        : along(context, { inputs: [dim, dim, dim], outputs: [dim] }),
    );
    const own = sectionedDim(axis, shape[axis] as number, [1], context.ranks);
    const part =
      own && divisionOf([own, undefined, undefined], [own], (rank) => [ownScatter(rank, axis)]);
    const isLinear = reduction === "none" || reduction === "add";
    // The data are a term of the sum, like what each rank adds to them.
    const added = sectionedWays(context, axis, indices[axis] as number);
    const terms = added.map((on) => divisionOf(["partial", on, on], ["partial"]));
    return [
      ...others,
      ...(part ? [part] : []),
      ...(isLinear ? [divisionOf(["partial", undefined, "partial"], ["partial"])] : []),
      ...(reduction === "add" ? terms : []),
    ];
  },
};

/** This rank's part of the data, with what is written there. */
function ownScatter(context: LocalContext, axis: number): Value {
  const [data, indices, updates] = [context.input(0), context.input(1), context.input(2)];
  const places = data.shape[axis] as number;
  const found = ownIndices(context, indices, places);
  if (context.attributes.string("reduction") === "add") {
    return context.again([data, orFirst(found), where(found.isOwn, updates, 0)])[0] as Value;
  }
  // What belongs to others goes behind the part, and is left out.
  const zeros = data.shape.map(() => 0);
  const longer = pad(data, zeros, zeros.with(axis, 1));
  const [all] = context.again([longer, orBehind(found, places), updates]) as readonly [Value];
  return slice(all, [{ axis, start: 0, end: places }]);
}

/**
 * For max and min: the elements equal to the result share its gradient evenly (as in PyTorch's
 * scatter_reduce).
 */
function extremeGradient(context: GradientContext, axis: number): (Value | undefined)[] {
  const [x, indices, updates] = [context.input(0), context.input(1), context.input(2)];
  const y = context.output(0);
  const kept = cast(equal(x, y), x.dtype);
  const written = cast(equal(updates, gatherElements(y, indices, axis)), x.dtype);
  const count = scatter(kept, indices, written, axis, "add");
  const share = div(context.gradient(0), count);
  return [mul(kept, share), undefined, mul(written, gatherElements(share, indices, axis))];
}
