/** The types of a model's inputs, in which named dims get sizes. */
import { LockstepError } from "../errors.ts";
import type { RawValueInfo } from "../onnx/index.ts";
import { elementTypeName } from "../onnx/index.ts";
import { anything, type OptionKinds } from "../options.ts";
import { dtypeFromOnnx, formatShape, type Shape, type TensorType } from "../tensor/index.ts";

export interface DimOptions {
  /** The sizes of the dims that have a name in the file: `{ batch: 8 }`. */
  readonly dims?: Readonly<Record<string, number>>;
  /** Whole shapes of inputs, which replace those in the file. */
  readonly shapes?: Readonly<Record<string, Shape>>;
  /** The size of the first dim of every input, if the file leaves it open. */
  readonly batch?: number;
}

/** The schemas of the sizes that a caller gives; each is checked where it is used. */
export const DIM_OPTIONS: OptionKinds<DimOptions> = {
  dims: anything.optional(),
  shapes: anything.optional(),
  batch: anything.optional(),
};

/** The static type of an input. Throws INVALID_OPTION that names the dims left open. */
export function bindType(info: RawValueInfo, options: DimOptions, file: string): TensorType {
  const tensor = info.type?.tensorType;
  if (tensor === undefined) {
    throw new LockstepError("ONNX_UNSUPPORTED", `${file}: input "${info.name}" is not a tensor.`, {
      hint: "Sequences, maps and optional values are not supported.",
      fields: { file },
    });
  }
  const dtype = dtypeFromOnnx(tensor.elemType);
  if (dtype === undefined) {
    throw new LockstepError(
      "ONNX_UNSUPPORTED",
      `${file}: input "${info.name}" has element type ${elementTypeName(tensor.elemType)}.`,
      { fields: { file } },
    );
  }
  const given = options.shapes?.[info.name];
  if (given !== undefined) return { dtype, shape: checkSizes(given, info.name) };
  if (tensor.shape === undefined) {
    throw new LockstepError("INVALID_OPTION", `${file}: input "${info.name}" has no shape.`, {
      hint: `Give it: shapes: { ${JSON.stringify(info.name)}: [...] }.`,
      fields: { file },
    });
  }
  const open: string[] = [];
  const shape = tensor.shape.dim.map((dim, index) => {
    if (dim.dimValue !== undefined && dim.dimValue > 0) return dim.dimValue;
    const named = dim.dimParam === "" ? undefined : options.dims?.[dim.dimParam];
    const size = named ?? (index === 0 ? options.batch : undefined);
    if (size === undefined) open.push(dim.dimParam === "" ? `dim ${index}` : dim.dimParam);
    return size ?? 0;
  });
  if (open.length > 0) {
    const names = open.filter((name) => !name.startsWith("dim "));
    throw new LockstepError(
      "INVALID_OPTION",
      `${file}: input "${info.name}" has dims without a size: ${open.join(", ")}.`,
      {
        hint:
          names.length === open.length
            ? `Shapes are static: give dims: { ${names.map((name) => `${JSON.stringify(name)}: …`).join(", ")} }.`
            : `Shapes are static: give shapes: { ${JSON.stringify(info.name)}: [...] }.`,
        fields: { file, dims: open },
      },
    );
  }
  return { dtype, shape: checkSizes(shape, info.name) };
}

function checkSizes(shape: Shape, input: string): Shape {
  if (shape.every((size) => Number.isSafeInteger(size) && size > 0)) return shape;
  throw new LockstepError(
    "INVALID_OPTION",
    `Input "${input}" cannot have the shape ${formatShape(shape)}.`,
    { hint: "Sizes are integers above zero." },
  );
}
