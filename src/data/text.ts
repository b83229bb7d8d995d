/**
 * Text files as training data for language models: found by globs, laid end to end, cut into
 * windows.
 *
 * The held-out text is chosen before any window is cut. If there are enough files, whole files are
 * held out, near-duplicates together, and no file twice; otherwise the tail of the text is. So no
 * text is both trained on and validated on.
 */
import { LockstepError } from "../errors.ts";
import { readFileWhole } from "../files/index.ts";
import { checkOptions, count, type OptionKinds, word } from "../options.ts";
import { type Document, loadDocuments } from "./document.ts";
import { findFiles } from "./find.ts";
import { matchFields } from "./match.ts";
import { globsOf, SOURCE_OPTIONS } from "./options.ts";
import { pathOf } from "./place.ts";
import { wordsOf } from "./ranges.ts";
import { checkHeldOut, checkSize } from "./records.ts";
import type { Dataset, OpenRequest, SourceOptions, TextPart } from "./source.ts";
import { bytesIn, dropDuplicates, splitDocuments } from "./split.ts";
import { streamOf, type TextStream } from "./stream.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { byteTokenizer } from "./tokenizer-bytes.ts";
import { tokenizerFromJson } from "./tokenizer-file.ts";
import { contextOf, TEXT_FIELDS, windows } from "./windows.ts";

export interface TextOptions extends SourceOptions {
  /**
   * The path of a `tokenizer.json` in the format of Hugging Face. Default: every byte is a token.
   */
  readonly tokenizer?: string;
  /**
   * The number of tokens from the start of one sample to the start of the next. Default: the
   * model's context, so that samples do not overlap.
   */
  readonly stride?: number;
}

export const TEXT_OPTIONS: OptionKinds<TextOptions> = {
  ...SOURCE_OPTIONS,
  tokenizer: word.optional(),
  stride: count.optional(),
};

export interface TextSource extends TextOptions {
  readonly kind: "text";
  readonly globs: readonly string[];
}

/**
 * Provides `ids` and `targets` [batch, context], int32 or int64. Default of `heldOut`: a twentieth.
 */
export function text(globs: string | readonly string[], options: TextOptions = {}): TextSource {
  checkOptions("text()", options, TEXT_OPTIONS);
  return { ...options, kind: "text", globs: globsOf("text()", globs) };
}

export async function openText(source: TextSource, request: OpenRequest): Promise<Dataset> {
  const name = `text(${source.globs.map((pattern) => `"${pattern}"`).join(", ")})`;
  const files = await findFiles(source.globs, request);
  return openDocuments(await loadDocuments(files), source, request, name);
}

/**
 * Opens documents. All sources whose samples are windows of text use it. `name` is shown to people.
 */
export async function openDocuments(
  found: readonly Document[],
  options: TextOptions,
  request: OpenRequest,
  name: string,
): Promise<Dataset> {
  const part = options.heldOut ?? 0.05;
  checkHeldOut(part);
  const context = contextOf(request);
  const stride = options.stride ?? context;
  if (!Number.isInteger(stride) || stride < 1) {
    throw new LockstepError(
      "INVALID_OPTION",
      `${name}: stride is ${stride}; it must be a whole number of tokens, 1 or more.`,
    );
  }
  const field = { type: "int32", shape: [context] } as const;
  const fields = Object.fromEntries(TEXT_FIELDS.map((key) => [key, field]));
  const matches = matchFields(request, options, fields, name);
  const tokenizer = await tokenizerOf(options, request);
  checkVocabulary(tokenizer, request, name);

  const documents = await dropDuplicates(found);
  const cut = { context, stride, matches };
  let split = await splitDocuments(documents, part);
  const held = await streamOf(split.validation, tokenizer);
  const heldSamples = windows(held, cut);
  const hasHeld = heldSamples.length > 0;
  // Held-out text that is too short for a single sample is of no use.
  if (!hasHeld) split = { train: documents, validation: [] };
  const train = await streamOf(split.train, tokenizer);
  const samples = windows(train, cut);
  const size = `${bytesIn(split.train).toLocaleString("en")} bytes in samples of ${context + 1} tokens`;
  checkSize(samples.length, request, `${name} (${size})`);
  return {
    train: samples,
    validation: hasHeld ? heldSamples : undefined,
    text: { tokenizer, train: partOf(train), validation: hasHeld ? partOf(held) : undefined },
    summary: summarize(found, documents, bytesIn(split.validation)),
    close: async () => {
      await Promise.all([train.close(), held.close()]);
    },
  };
}

/** Throws DATA_FORMAT if the tokenizer has ids that the model's vocabulary lacks. */
function checkVocabulary(tokenizer: Tokenizer, request: OpenRequest, name: string): void {
  for (const { name: input, ranges = [] } of request.inputs) {
    for (const range of ranges) {
      if (range === undefined || tokenizer.size - 1 <= range.high) continue;
      throw new LockstepError(
        "DATA_FORMAT",
        `${name}: the tokenizer has ${tokenizer.size} ids, but the model's input "${input}" takes ${wordsOf(range)}.`,
        { hint: `Give the model a vocabulary of ${tokenizer.size} or more.` },
      );
    }
  }
}

function partOf({ byteLength, length, bytes }: TextStream): TextPart {
  return { byteLength, tokens: length, bytes };
}

async function tokenizerOf(options: TextOptions, request: OpenRequest): Promise<Tokenizer> {
  if (options.tokenizer === undefined) return byteTokenizer();
  const path = pathOf(options.tokenizer, request);
  const json = new TextDecoder().decode(await readFileWhole(path));
  return tokenizerFromJson(json, path);
}

function summarize(
  found: readonly Document[],
  kept: readonly Document[],
  heldBytes: number,
): string {
  const total = bytesIn(kept);
  const dropped = found.length - kept.length;
  const files = `${kept.length.toLocaleString("en")} ${kept.length === 1 ? "file" : "files"}`;
  const copies = dropped === 0 ? "" : ` (and ${dropped.toLocaleString("en")} copies left out)`;
  const held = heldBytes === 0 ? "nothing" : `${((100 * heldBytes) / total).toFixed(0)}%`;
  return `${files}${copies}, ${formatBytes(total)} of text, ${held} held out`;
}

function formatBytes(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  return `${(bytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}
