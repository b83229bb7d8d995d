/** The options of `onnx(…)`, and the check of its arguments when a run file calls it. */
import { LockstepError } from "../errors.ts";
import { anything, checkOptions, flag, type OptionKinds } from "../options.ts";
import type { DeclaredParameter } from "./declared.ts";
import type { TrainedFloat } from "./floats.ts";
import type { ImportOptions } from "./import.ts";
import type { OnnxLoss } from "./losses.ts";

export interface OnnxOptions extends Omit<ImportOptions, "trainable"> {
  /** The loss to minimize. See `crossEntropy` and others in `losses.ts`. */
  readonly loss: OnnxLoss;
  /** The weights that are trained, by name; the others stay constants. Default: all. */
  readonly trainable?: RegExp | ((name: string) => boolean);
  /**
   * The parameters of the module that the file came from, if the file alone does not give them
   * correctly: a safetensors file of its state dict, or a list. docs/exporting.md has the Python
   * code that writes it.
   */
  readonly parameters?: string | URL | readonly DeclaredParameter[];
  /**
   * The type of all floats of the model: weights, inputs and intermediate values are converted when
   * it is read. It is needed for files in float16, bfloat16 and float64. Default: float32, which
   * the file must have.
   */
  readonly dtype?: TrainedFloat;
  /** Whether running statistics that the file has fixed are updated again. Default: false. */
  readonly trainStatistics?: boolean;
  /**
   * Whether the file's multi-device annotations are followed: its pipeline stages with `parallel: {
   * pipeline }`, and how it cuts parameters with `parallel: { tensor }`. Default: true.
   */
  readonly devices?: boolean;
}

const OPTIONS: OptionKinds<OnnxOptions> = {
  loss: anything,
  trainable: anything.optional(),
  parameters: anything.optional(),
  dtype: anything.optional(),
  trainStatistics: flag.optional(),
  devices: flag.optional(),
  dims: anything.optional(),
  shapes: anything.optional(),
  batch: anything.optional(),
};

/** @throws INVALID_OPTION */
export function checkGiven(model: unknown, options: OnnxOptions): void {
  if (!(model instanceof URL) && (typeof model !== "string" || model === "")) {
    throw new LockstepError("INVALID_OPTION", `onnx needs a path, got ${String(model)}.`, {
      hint: "If it comes from a variable of the environment, that one is not set.",
    });
  }
  checkOptions(`onnx("${String(model)}")`, options, OPTIONS);
  if (typeof options.loss !== "string" && typeof options.loss !== "function") {
    throw new LockstepError(
      "INVALID_OPTION",
      `onnx("${String(model)}"): loss is of type ${typeof options.loss}.`,
      {
        hint: "It must be a loss such as crossEntropy({…}), or the name of an output that is the loss.",
      },
    );
  }
}
