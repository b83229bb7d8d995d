/**
 * A user's `tokenizer.json`, run by Hugging Face's own JavaScript library. Our byte tokenizer is
 * recognized by its form.
 */
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { LockstepError } from "../errors.ts";
import type { TokenDecoder, Tokenizer } from "./tokenizer.ts";
import { byteAlphabet, byteTokenizer } from "./tokenizer-bytes.ts";
import { addedTokenCheck, checkTokenizer } from "./tokenizer-check.ts";

/** The common names of the token that ends a document, the most common first. */
const SEPARATORS = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]"];

/** Reads the contents of a `tokenizer.json`. Throws FILE_CORRUPT; `path` is used in its message. */
export function tokenizerFromJson(json: string, path: string): Tokenizer {
  const corrupt = (what: string, cause?: unknown) =>
    new LockstepError("FILE_CORRUPT", `"${path}" is not a tokenizer.json: ${what}.`, {
      hint: 'A tokenizer.json is what `tokenizer.save("tokenizer.json")` of Hugging Face\'s tokenizers writes.',
      fields: { path },
      cause,
    });
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    throw corrupt("it is not JSON", error);
  }
  if (typeof parsed !== "object" || parsed === null || !("model" in parsed)) {
    throw corrupt("it has no model");
  }
  if (isByteLevelWithoutMerges(parsed)) return byteTokenizer();
  checkTokenizer(parsed, path);
  let inner: HuggingFaceTokenizer;
  try {
    inner = new HuggingFaceTokenizer(parsed, {});
  } catch (error) {
    throw corrupt(error instanceof Error ? error.message : String(error), error);
  }
  return fileTokenizer(inner, json, addedTokenCheck(parsed, path));
}

function isByteLevelWithoutMerges(json: object): boolean {
  const {
    model,
    normalizer,
    added_tokens: added,
  } = json as {
    model?: { type?: unknown; vocab?: Record<string, unknown>; merges?: unknown[] };
    normalizer?: unknown;
    added_tokens?: unknown[];
  };
  if (model?.type !== "BPE" || model.merges?.length !== 0 || (normalizer ?? null) !== null)
    return false;
  const vocab = model.vocab ?? {};
  return (
    (added ?? []).length === 0 &&
    Object.keys(vocab).length === 256 &&
    byteAlphabet().every((symbol, byte) => vocab[symbol] === byte)
  );
}

function fileTokenizer(
  inner: HuggingFaceTokenizer,
  json: string,
  checkText: (text: string) => void,
): Tokenizer {
  const vocabulary = inner.get_vocab();
  let size = 0;
  for (const id of vocabulary.values()) size = Math.max(size, id + 1);
  const separator = SEPARATORS.find((token) => vocabulary.has(token));
  const decode = (ids: ArrayLike<number>): string =>
    ids.length === 0
      ? "" // the library refuses it
      : inner.decode(Array.from(ids), {
          skip_special_tokens: false,
          clean_up_tokenization_spaces: false,
        });
  return {
    kind: "bpe",
    size,
    separator: separator === undefined ? 0 : (vocabulary.get(separator) ?? 0),
    encode: (text) => {
      checkText(text);
      return Int32Array.from(inner.encode(text, { add_special_tokens: false }).ids);
    },
    decode,
    decoder: () => streamingDecoder(decode),
    toJson: () => json,
  };
}

/** A character has at most four bytes; if it is still incomplete after more ids, it is invalid. */
const MAX_PENDING_IDS = 8;

/**
 * Decodes each id together with the ids decoded last, since a token's text may depend on its
 * neighbour (spaces).
 */
function streamingDecoder(decode: (ids: number[]) => string): TokenDecoder {
  let context: number[] = [];
  let pending: number[] = [];
  const flush = (): string => {
    const text = decode([...context, ...pending]).slice(decode(context).length);
    if (pending.length > 0) context = pending;
    pending = [];
    return text;
  };
  return {
    push: (id) => {
      pending.push(id);
      const unfinished = decode(pending).endsWith("\ufffd");
      return unfinished && pending.length < MAX_PENDING_IDS ? "" : flush();
    },
    end: flush,
  };
}
