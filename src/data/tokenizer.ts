/** What turns text into token ids and back. */

export interface Tokenizer {
  /** `bytes` (every byte is a token) or `bpe`. */
  readonly kind: string;
  /** Ids are in [0, size): the vocabulary that a model needs. */
  readonly size: number;
  /** Put between documents, and a good first token of a generated text. */
  readonly separator: number;
  encode(text: string): Int32Array;
  /** All at once; bytes that are no UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>): string;
  /** For text that comes token by token: a character is given out when its last byte is there. */
  decoder(): TokenDecoder;
  /** The contents of `tokenizer.json` in the format of Hugging Face. */
  toJson(): string;
}

export interface TokenDecoder {
  /** The text that this id completes; often empty in the middle of a character. */
  push(id: number): string;
  /** What is left: U+FFFD for an unfinished character. */
  end(): string;
}
