/**
 * Schemas that the messages of workers and of agents share, and the error for what does not fit
 * one.
 */
import { z } from "zod";
import { type ErrorCode, LockstepError } from "../errors.ts";
import type { TrainResult } from "../run/index.ts";

const MAX_TEXT = 2 ** 17;
const MAX_FIELDS = 100;
const value = z.union([z.string().max(MAX_TEXT), z.number()]);

export const port = z.int().min(1).max(65535);
export const outcome = z.enum([
  "finished",
  "stopped",
  "followed",
  "complete",
] satisfies TrainResult["outcome"][]);

export const errorSchema = z.strictObject({
  code: z
    .custom<ErrorCode>((code) => typeof code === "string" && /^[A-Z_]{1,40}$/.test(code))
    .optional(),
  text: z.string().max(MAX_TEXT),
  fields: z
    .record(
      z.string().max(200),
      z.union([
        value,
        z.boolean(),
        z.nan(),
        z.array(value).max(MAX_FIELDS).readonly(),
        z.null().transform(() => Number.NaN), // JSON has no NaN
      ]),
    )
    .refine((fields) => Object.keys(fields).length <= MAX_FIELDS, "has too many entries"),
});

/** The error for a message of `from` that matches no schema. */
export function notUnderstood(from: string, { issues }: z.ZodError): LockstepError {
  const [issue] = issues;
  const place = issue?.path.join(".") ?? "";
  const what = `${place.slice(0, 200)} ${issue?.message.slice(0, 500) ?? ""}`.trim();
  return new LockstepError("PROTOCOL", `${from} sent a message that is not understood: ${what}.`, {
    hint: "Use the same version of lockstep everywhere.",
    fields: { from },
  });
}
