/** Documents as one stream of tokens that also knows its bytes: bits per byte need both. */
import { LockstepError } from "../errors.ts";
import { contentOf, type Document } from "./document.ts";
import { bytesIn } from "./split.ts";
import { byteStore, piecesOf } from "./store.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { TokenStream, Tokens } from "./windows.ts";

export interface TextStream extends TokenStream {
  /** The number of bytes of the text, with one separator after each document. */
  readonly byteLength: number;
  bytes(): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/**
 * The most text that is tokenized at start: more would take hours and fill the memory. Byte tokens
 * have no such limit.
 */
const MAX_TOKENIZED_BYTES = 2 ** 31;

/**
 * The size of the pieces that are tokenized at once, cut at a line break: some tokenizers take more
 * than linear time.
 */
const CHUNK_BYTES = 1 << 16;

export async function streamOf(
  documents: readonly Document[],
  tokenizer: Tokenizer,
): Promise<TextStream> {
  const store = byteStore(documents, tokenizer.kind === "bytes" ? tokenizer.separator : 10);
  const { byteLength } = store;
  const bytes = () => piecesOf(store);
  const close = () => store.close();
  if (tokenizer.kind === "bytes") {
    return { length: byteLength, read: store.read, byteLength, bytes, close };
  }
  const tokens = await tokenize(documents, tokenizer);
  return {
    length: tokens.length,
    read: async (start, length) => tokens.subarray(start, start + length),
    byteLength,
    bytes,
    close,
  };
}

async function tokenize(documents: readonly Document[], tokenizer: Tokenizer): Promise<Tokens> {
  const total = bytesIn(documents);
  if (total > MAX_TOKENIZED_BYTES) {
    throw new LockstepError(
      "INVALID_OPTION",
      `${total.toLocaleString("en")} bytes of text are too many to tokenize at the start of a run; the limit is ${MAX_TOKENIZED_BYTES.toLocaleString("en")}.`,
      {
        hint: "Leave out `tokenizer` to train on bytes, or tokenize once and train on an array of ids.",
      },
    );
  }
  const make = (length: number): Tokens =>
    tokenizer.size > 65536 ? new Int32Array(length) : new Uint16Array(length);
  let tokens = make(Math.ceil(total / 2) + 16);
  let length = 0;
  const append = (ids: ArrayLike<number>) => {
    if (length + ids.length > tokens.length) {
      const larger = make(2 * (length + ids.length));
      larger.set(tokens);
      tokens = larger;
    }
    tokens.set(ids, length);
    length += ids.length;
  };
  for (const document of documents) {
    for (const chunk of chunksOf(await contentOf(document))) append(tokenizer.encode(chunk));
    append([tokenizer.separator]);
  }
  return tokens.slice(0, length);
}

function* chunksOf(content: Uint8Array): Generator<string> {
  const decoder = new TextDecoder();
  for (let start = 0; start < content.length; ) {
    const newline = content.indexOf(10, start + CHUNK_BYTES);
    const end = newline === -1 ? content.length : newline + 1;
    yield decoder.decode(content.subarray(start, end), { stream: end < content.length });
    start = end;
  }
}
