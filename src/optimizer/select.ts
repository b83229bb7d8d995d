/** Selections of parameters as data, so that a job can be written, read, and sent. */
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import type { TensorType } from "../tensor/index.ts";

/** All conditions that are given must hold; `{}` selects every parameter. */
export interface ParameterSelector {
  /** The name matches this regular expression. */
  readonly include?: RegExp | string;
  /** The name does not match this regular expression. */
  readonly exclude?: RegExp | string;
  readonly minimumRank?: number;
  readonly maximumRank?: number;
}

const expression = z.union([z.instanceof(RegExp), z.string()], {
  error: "It must be a regular expression.",
});
const rank = z.int({ error: "It must be a whole number." });

/** The schema of an option that selects parameters. */
export const selector: z.ZodType = z.strictObject(
  {
    include: expression.optional(),
    exclude: expression.optional(),
    minimumRank: rank.optional(),
    maximumRank: rank.optional(),
  } satisfies Record<keyof ParameterSelector, z.ZodType>,
  { error: "It must be an object with include, exclude, minimumRank or maximumRank." },
);

export function isSelected(
  selector: ParameterSelector,
  parameter: { readonly name: string; readonly type: TensorType },
): boolean {
  const rank = parameter.type.shape.length;
  return (
    (selector.include === undefined || pattern(selector.include).test(parameter.name)) &&
    (selector.exclude === undefined || !pattern(selector.exclude).test(parameter.name)) &&
    rank >= (selector.minimumRank ?? 0) &&
    rank <= (selector.maximumRank ?? Number.POSITIVE_INFINITY)
  );
}

/** The regular expression without the flags that make `test` remember its last position. */
function pattern(source: RegExp | string): RegExp {
  if (typeof source !== "string")
    return new RegExp(source.source, source.flags.replace(/[gy]/g, ""));
  try {
    return new RegExp(source);
  } catch (cause) {
    throw new LockstepError(
      "INVALID_OPTION",
      `Parameter selector: "${source}" is not a regular expression.`,
      { cause },
    );
  }
}
