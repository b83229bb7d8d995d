/** Turns text into token ids and back. */

export interface Tokenizer {
  /** `bytes` (every byte is a token) or `bpe`. */
  readonly kind: string;
  /** The size of the vocabulary: ids are in [0, size). */
  readonly size: number;
  /** The id that separates documents; it is also a good first token of a generated text. */
  readonly separator: number;
  encode(text: string): Int32Array;
  /** Decodes all ids at once; bytes that are not UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>): string;
  /**
   * Decodes text that comes token by token: a character is returned when its last byte is there.
   */
  decoder(): TokenDecoder;
  /** The contents of `tokenizer.json` in the format of Hugging Face. */
  toJson(): string;
}

export interface TokenDecoder {
  /** The text that this id completes; it is often empty in the middle of a character. */
  push(id: number): string;
  /** The rest: U+FFFD for an incomplete character. */
  end(): string;
}
