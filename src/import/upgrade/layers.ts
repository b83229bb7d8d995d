/** Layers whose form changed: named pads, normalizations, resizing. */
import type { AttributeValue, Value } from "../../graph/index.ts";
import { INTERNAL_OPSET } from "../../onnx/index.ts";
import { type Rule, type RuleContext, type RuleTable, rewrite } from "./rule.ts";

const ints = (value: readonly number[]): AttributeValue => ({ kind: "ints", value });

/** Converts a named `auto_pad` to explicit pads, because shapes are known. */
const autoPad: Rule = (context) => {
  const { node, input, string } = context;
  const mode = string("auto_pad", "NOTSET");
  if (mode === "NOTSET") return rewrite(node, { without: ["auto_pad"] });
  const spatial = input(0).shape.slice(2);
  const kernel = context.ints("kernel_shape") ?? node.inputs[1]?.shape.slice(2) ?? [];
  const strides = context.ints("strides") ?? spatial.map(() => 1);
  const dilations = context.ints("dilations") ?? spatial.map(() => 1);
  const begin = spatial.map(() => 0);
  const end = spatial.map(() => 0);
  if (mode === "SAME_UPPER" || mode === "SAME_LOWER") {
    for (const [dim, size] of spatial.entries()) {
      const stride = strides[dim] as number;
      const reach = ((kernel[dim] as number) - 1) * (dilations[dim] as number) + 1;
      const total = Math.max(0, (Math.ceil(size / stride) - 1) * stride + reach - size);
      const less = Math.floor(total / 2);
      begin[dim] = mode === "SAME_UPPER" ? less : total - less;
      end[dim] = total - begin[dim];
    }
  } else if (mode !== "VALID") {
    context.fail(`auto_pad "${mode}"`);
  }
  return rewrite(node, { without: ["auto_pad"], set: { pads: ints([...begin, ...end]) } });
};

/** Before version 14, more than one output meant training mode. */
const oldBatchNormalization: Rule = ({ node, int, fail }) => {
  if (int("spatial", 1) === 0) fail("BatchNormalization over each element (spatial=0)");
  const training = node.outputs.length > 1;
  return {
    ...rewrite(node, {
      without: ["spatial", "is_test"],
      set: training ? { training_mode: { kind: "int", value: 1 } } : {},
    }),
    outputs: node.outputs.slice(0, training ? 3 : 1),
  };
};

/** Before version 21, scale and bias had one element per group; now they have one per channel. */
const groupScale: Rule = ({ node, input, int, one, builder, fail }) => {
  const channels = input(0).shape[1];
  const groups = int("num_groups", 1);
  if (channels === undefined || groups < 1 || channels % groups !== 0) {
    return fail(`${groups} groups of ${channels ?? "no"} channels`);
  }
  const spread = (value: Value): Value => {
    const column = one("Reshape", [value, builder.ints([groups, 1])]);
    const wide = one("Expand", [column, builder.ints([groups, channels / groups])]);
    return one("Reshape", [wide, builder.ints([channels])]);
  };
  if (groups === channels) return undefined;
  return rewrite(node, { inputs: [input(0), spread(input(1)), spread(input(2))] });
};

/** The scale of each dim is a constant; versions before 11 had no region and no sizes. */
const oldResize: Rule = (context) => {
  const { node, input } = context;
  const given = context.attribute("scales");
  const factors = given?.kind === "floats" ? given.value : undefined;
  const scales =
    factors === undefined
      ? input(1)
      : context.builder.constant({
          dtype: "float32",
          shape: [factors.length],
          bytes: new Uint8Array(Float32Array.from(factors).buffer),
        });
  const set: Record<string, AttributeValue> = {
    coordinate_transformation_mode: { kind: "string", value: "asymmetric" },
  };
  if (context.string("mode", "nearest") === "nearest") {
    set["nearest_mode"] = { kind: "string", value: "floor" };
  }
  const newest = rewrite(node, {
    op: "Resize",
    inputs: [input(0), undefined, scales],
    without: ["scales", "width_scale", "height_scale"],
    set,
  });
  return { ...newest, opset: INTERNAL_OPSET };
};

/** Converts sizes and axes to an empty region and full sizes or scales. */
const resizeSizes: Rule = (context) => {
  const { node, input } = context;
  const axes = context.ints("axes");
  // The policies consider the sizes of these axes only.
  if (axes === undefined || context.string("keep_aspect_ratio_policy", "stretch") !== "stretch") {
    return undefined;
  }
  const { shape } = input(0);
  const full = (
    index: number,
    otherwise: readonly number[],
    given: readonly number[] = context.numbers(index),
  ): number[] => {
    const values = [...otherwise];
    for (const [i, axis] of axes.entries()) {
      values[axis < 0 ? axis + shape.length : axis] = given[i] as number;
    }
    return values;
  };
  const { builder } = context;
  if (context.string("coordinate_transformation_mode", "") === "tf_crop_and_resize") {
    const given = context.numbers(1);
    const edges = (ends: number, otherwise: number) =>
      full(
        1,
        shape.map(() => otherwise),
        given.slice(ends),
      );
    const region = builder.constant(floats([...edges(0, 0), ...edges(axes.length, 1)]));
    const sizes = node.inputs[3] && builder.ints(full(3, shape));
    return rewrite(node, { inputs: [input(0), region, node.inputs[2], sizes], without: ["axes"] });
  }
  const inputs =
    node.inputs[3] !== undefined
      ? [input(0), undefined, undefined, builder.ints(full(3, shape))]
      : [
          input(0),
          undefined,
          builder.constant(
            floats(
              full(
                2,
                shape.map(() => 1),
              ),
            ),
          ),
        ];
  return rewrite(node, { inputs, without: ["axes"] });
};

function floats(values: readonly number[]) {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  return { dtype: "float32" as const, shape: [values.length], bytes };
}

/** Before version 20, the modes had the names used for images. */
const gridModes: Rule = ({ node, string }) => {
  const names: Record<string, string> = { bilinear: "linear", bicubic: "cubic" };
  const mode = string("mode", "bilinear");
  return rewrite(node, { set: { mode: { kind: "string", value: names[mode] ?? mode } } });
};

/** Optional inputs may be written as empty tensors. */
const emptyInputs: Rule = ({ node }) => {
  if (!node.inputs.some((value, i) => i > 0 && value?.shape.length === 1 && value.shape[0] === 0)) {
    return undefined;
  }
  return rewrite(node, {
    inputs: node.inputs.map((value, i) =>
      i > 0 && value?.shape.length === 1 && value.shape[0] === 0 ? undefined : value,
    ),
  });
};

/**
 * Before version 7, broadcasting had to be requested; before version 11, the third input was
 * required.
 */
function oldGemm({ node }: RuleContext) {
  return rewrite(node, { without: ["broadcast"] });
}

export const layerRules: RuleTable = {
  Conv: [{ rule: autoPad }],
  MaxPool: [{ rule: autoPad }],
  AveragePool: [{ rule: autoPad }],
  BatchNormalization: [{ below: 14, rule: oldBatchNormalization }],
  GroupNormalization: [{ below: 21, rule: groupScale }],
  GridSample: [{ below: 20, rule: gridModes }],
  Upsample: [{ rule: oldResize }],
  Resize: [{ below: 11, rule: oldResize }, { rule: emptyInputs }, { rule: resizeSizes }],
  Gemm: [{ below: 11, rule: oldGemm }],
};
