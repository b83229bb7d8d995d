import type {
  Division,
  DivisionContext,
  GradientContext,
  InferContext,
  OperatorDefinition,
} from "../../graph/index.ts";
import { elementCount, isFloat } from "../../tensor/index.ts";
import { along, linearDivisions } from "../divisions.ts";
import { unsupported } from "../shared.ts";
import { transposeMaps } from "./axis-map.ts";
import {
  COORDINATE_MODES,
  RATIO_POLICIES,
  RESIZE_MODES,
  type ResizedDim,
  resizedDims,
  resizeMaps,
} from "./resize-maps.ts";

/**
 * X with dims of other sizes, by scales (input 2) or sizes (input 3). Every mode is linear in X,
 * one dim after the other, so the gradient goes through the transposed maps. Input 1 is the region
 * for tf_crop_and_resize, which is not supported together with scales.
 */
export const resize: OperatorDefinition = {
  name: "Resize",
  inputs: [1, 4],
  outputs: [1, 1],
  attributes: {
    antialias: { kind: "int", default: 0 },
    axes: { kind: "ints", default: null },
    coordinate_transformation_mode: { kind: "string", default: "half_pixel" },
    cubic_coeff_a: { kind: "float", default: -0.75 },
    exclude_outside: { kind: "int", default: 0 },
    extrapolation_value: { kind: "float", default: 0 },
    keep_aspect_ratio_policy: { kind: "string", default: "stretch" },
    mode: { kind: "string", default: "nearest" },
    nearest_mode: { kind: "string", default: "round_prefer_floor" },
  },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    checkModes(context);
    const result = [...shape];
    for (const { axis, to } of dimsOf(context)) result[axis] = to;
    return [{ dtype, shape: result }];
  },
  gradient: (context) => {
    const maps = resizeMaps(context.attributes, dimsOf(context));
    return [transposeMaps(context.gradient(0), maps)];
  },
  flops: (context) => 4 * elementCount(context.outputs[0]?.shape ?? []),
  inPlace: false,
  divisions: resizeDivisions,
};

/** Along dims that keep their elements, and of the terms of a sum. */
function resizeDivisions(context: DivisionContext): Division[] {
  const { dtype, shape } = context.input(0);
  const dims = dimsOf(context);
  const sizes = sizesOf(context);
  const others = context.inputs.slice(1).map(() => undefined);
  const cuts = shape.flatMap((size, dim) => {
    const at = dims.findIndex(({ axis }) => axis === dim);
    const { to, scale } = dims[at] ?? { to: size, scale: 1 };
    const isListed = at >= 0 && sizes !== undefined;
    if (to !== size || scale !== 1 || (isListed && sizes[at] !== size)) return [];
    return along(context, {
      inputs: [dim, ...others],
      outputs: [dim],
      local: isListed
        ? ({ inputs, builder, again, ranks }) =>
            again(inputs.with(3, builder.ints(sizes.with(at, size / ranks))))
        : undefined,
    });
  });
  // Positions outside of a region have a value that does not depend on X.
  const isLinear = !isCrop(context) || context.attributes.number("extrapolation_value") === 0;
  const linear = isLinear && isFloat(dtype) ? linearDivisions(context, "first") : [];
  return [...cuts, ...linear];
}

function checkModes(context: InferContext): void {
  const { attributes } = context;
  const check = (name: string, known: readonly string[]) => {
    const value = attributes.string(name);
    if (!known.includes(value)) {
      unsupported(context, `${name} "${value}"`, `Known: ${known.join(", ")}.`);
    }
  };
  check("mode", RESIZE_MODES);
  check("coordinate_transformation_mode", COORDINATE_MODES);
  check("keep_aspect_ratio_policy", RATIO_POLICIES);
  const coordinates = attributes.string("coordinate_transformation_mode");
  if (coordinates === "tf_crop_and_resize" && context.inputs[3] === undefined) {
    unsupported(context, `${coordinates} with scales`, "Give it sizes.");
  }
  if (attributes.number("antialias") === 1 && attributes.string("mode") === "nearest") {
    unsupported(context, 'antialias with mode "nearest"');
  }
}

type Context = InferContext | GradientContext;

function isCrop({ attributes }: Context): boolean {
  return attributes.string("coordinate_transformation_mode") === "tf_crop_and_resize";
}

/** The numbers of an input that may be omitted or empty. */
function given(context: Context, index: number): number[] | undefined {
  if (context.inputs[index] === undefined) return undefined;
  const numbers = context.constantNumbers(index);
  return numbers.length === 0 ? undefined : numbers;
}

function sizesOf(context: Context): number[] | undefined {
  return given(context, 3);
}

function dimsOf(context: Context): ResizedDim[] {
  const { shape } = context.inputs[0] as { shape: readonly number[] };
  return resizedDims(context.attributes, shape, {
    region: isCrop(context) ? given(context, 1) : undefined,
    scales: given(context, 2),
    sizes: sizesOf(context),
  });
}
