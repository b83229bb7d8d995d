import type { GradientContext, InferContext, OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
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
};

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

function dimsOf(context: InferContext | GradientContext): ResizedDim[] {
  const { shape } = context.inputs[0] as { shape: readonly number[] };
  const given = (index: number): number[] | undefined => {
    if (context.inputs[index] === undefined) return undefined;
    const numbers = context.constantNumbers(index);
    return numbers.length === 0 ? undefined : numbers;
  };
  const isCrop =
    context.attributes.string("coordinate_transformation_mode") === "tf_crop_and_resize";
  return resizedDims(context.attributes, shape, {
    region: isCrop ? given(1) : undefined,
    scales: given(2),
    sizes: given(3),
  });
}
