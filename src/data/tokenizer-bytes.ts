/**
 * Every byte is a token, and its id is its value: there is no vocabulary to learn, and any text in
 * any language can be encoded.
 */
import type { TokenDecoder, Tokenizer } from "./tokenizer.ts";

/** Byte 0 hardly ever occurs in text, so it can separate documents. */
const SEPARATOR = 0;

export function byteTokenizer(): Tokenizer {
  return {
    kind: "bytes",
    size: 256,
    separator: SEPARATOR,
    encode: (text) => Int32Array.from(Buffer.from(text, "utf8")),
    decode: (ids) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(ids)),
    decoder: byteDecoder,
    toJson: () => `${JSON.stringify(byteTokenizerJson(), undefined, 1)}\n`,
  };
}

function byteDecoder(): TokenDecoder {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    push: (id) => decoder.decode(Uint8Array.of(id), { stream: true }),
    end: () => decoder.decode(),
  };
}

/** This tokenizer as a byte-level BPE without merges, in the vocabulary of Hugging Face. */
function byteTokenizerJson(): object {
  const byteLevel = {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: false,
    use_regex: false,
  };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(byteAlphabet().map((symbol, byte) => [symbol, byte])),
      merges: [],
    },
  };
}

/**
 * GPT-2's printable substitute for each byte: the byte itself if Latin-1 prints it, otherwise the
 * next code point from 256 on (Radford et al. 2019; the alphabet of every byte-level
 * tokenizer.json).
 */
export function byteAlphabet(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCodePoint(printable ? byte : next++);
  });
}
