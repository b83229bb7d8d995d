/**
 * A stream of tokens cut into windows: sample i is `ids` = tokens [i·stride, i·stride + T), and
 * `targets` is the same shifted by one token.
 */
import { LockstepError } from "../errors.ts";
import { formatShape, formatType, type Tensor } from "../tensor/index.ts";
import type { Match } from "./match.ts";
import { targetOf } from "./records.ts";
import type { OpenRequest, SampleSet } from "./source.ts";

export type Tokens = Uint8Array | Uint16Array | Int32Array;

export interface TokenStream {
  readonly length: number;
  read(start: number, length: number): Promise<Tokens>;
}

/**
 * The fields of text. Positions in the stream are not among them: they would reveal the order of
 * documents.
 */
export const TEXT_FIELDS = ["ids", "targets"] as const;

/** The context T, taken from the model's inputs. Throws DATA_FORMAT if they disagree on it. */
export function contextOf(request: OpenRequest): number {
  const [first, ...others] = request.inputs;
  const context = first?.type.shape[1];
  if (first === undefined || context === undefined || first.type.shape.length !== 2) {
    throw new LockstepError(
      "DATA_FORMAT",
      first === undefined
        ? "The model has no input for text to feed."
        : `Text feeds inputs of shape [batch, context], but the model's input "${first.name}" is ${formatType(first.type)}.`,
      { hint: "Text has the fields ids and targets, both int32 or int64." },
    );
  }
  for (const { name, type } of request.inputs) {
    if (type.dtype === "int32" || type.dtype === "int64") continue;
    throw new LockstepError(
      "DATA_FORMAT",
      `Text feeds token ids, but the model's input "${name}" is ${formatType(type)}.`,
      { hint: "Ids are int32 or int64." },
    );
  }
  for (const { name, type } of others) {
    if (type.shape.length === 2 && type.shape[1] === context) continue;
    throw new LockstepError(
      "DATA_FORMAT",
      `The model's inputs "${first.name}" ${formatShape(first.type.shape)} and "${name}" ${formatShape(type.shape)} disagree on the context.`,
      { hint: "Both must be [batch, context]." },
    );
  }
  return context;
}

/** The number of windows of `context` + 1 tokens that fit. */
export function windowCount(tokens: number, context: number, stride: number): number {
  return Math.max(0, Math.floor((tokens - context - 1) / stride) + 1);
}

/** The windows of a stream as a sample set. */
export function windows(
  stream: TokenStream,
  { context, stride, matches }: { context: number; stride: number; matches: readonly Match[] },
): SampleSet {
  return {
    length: windowCount(stream.length, context, stride),
    read: async (indices, into) => {
      const rows = matches
        .filter(({ input }) => Object.hasOwn(into, input.name))
        .map(({ input, name }) => ({
          shift: name === "targets" ? 1 : 0,
          store: rowWriter(targetOf(into, input.name, indices.length), context),
        }));
      await Promise.all(
        indices.map(async (index, row) => {
          const tokens = await stream.read(index * stride, context + 1);
          for (const { shift, store } of rows) store(row, tokens.subarray(shift, shift + context));
        }),
      );
    },
  };
}

/** Writes one row of a [batch, context] tensor of int32 or int64. */
function rowWriter(target: Tensor, context: number): (row: number, tokens: Tokens) => void {
  const { buffer, byteOffset } = target.bytes;
  const count = (target.shape[0] ?? 0) * context;
  if (target.dtype === "int64") {
    const values = new BigInt64Array(buffer, byteOffset, count);
    return (row, tokens) => values.set(Array.from(tokens, BigInt), row * context);
  }
  const values = new Int32Array(buffer, byteOffset, count);
  return (row, tokens) => values.set(tokens, row * context);
}
