/** Checks the arguments of `onnx(…)` when a run file calls it. */
import { LockstepError } from "../errors.ts";
import { anything, checkOptions, flag, type OptionKinds } from "../options.ts";
import type { OnnxOptions } from "./define.ts";

const OPTIONS: OptionKinds<OnnxOptions> = {
  loss: anything,
  trainable: anything.optional(),
  parameters: anything.optional(),
  dtype: anything.optional(),
  trainStatistics: flag.optional(),
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
