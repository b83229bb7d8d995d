/**
 * What makes a stream's frames its sender's: the tag of each covers its bytes and its place in the order, under a key of this
 * connection and direction. Poly1305 of ChaCha20-Poly1305 with nothing encrypted: 12 GB/s here, where HMAC-SHA256 has 1.7.
 */
import { type CipherCCM, createCipheriv } from "node:crypto";

export const TAG_BYTES = 16;
const NONCE_BYTES = 12;

/** The tags of one direction, in order: both ends count the frames, so none can be left out, moved or sent again. */
export class Seal {
  readonly #key: Uint8Array;
  readonly #nonce = new Uint8Array(NONCE_BYTES);
  readonly #counter = new DataView(this.#nonce.buffer);
  #count = 0n;
  #cipher: CipherCCM | undefined;

  /** @param key 32 bytes that seal this direction of this connection and nothing else */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** More bytes of the frame at hand. */
  add(bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return;
    this.#begun().setAAD(bytes, { plaintextLength: 0 });
  }

  /** Of the frame that ends here; the next bytes are those of the next one. */
  tag(): Uint8Array {
    const cipher = this.#begun();
    cipher.final();
    this.#cipher = undefined;
    return cipher.getAuthTag();
  }

  #begun(): CipherCCM {
    if (this.#cipher === undefined) {
      this.#counter.setBigUint64(0, this.#count, true);
      this.#count += 1n;
      const options = { authTagLength: TAG_BYTES };
      this.#cipher = createCipheriv("chacha20-poly1305", this.#key, this.#nonce, options);
    }
    return this.#cipher;
  }
}
