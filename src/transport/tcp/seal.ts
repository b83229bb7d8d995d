/**
 * Marks on what one end sends after the handshake, one after the other: a tag under the key of this end and stream, for this place in
 * the order. Whatever was altered, repeated, left out, swapped or sent back to its sender has another tag.
 *
 * The tag is Poly1305 with a fresh key for each place, as ChaCha20-Poly1305 (RFC 8439) makes it for data that is only authenticated.
 */
import { createCipheriv, timingSafeEqual } from "node:crypto";

export const TAG_BYTES = 16;
const NONCE_BYTES = 12;

export class Seal {
  readonly #key: Uint8Array;
  readonly #nonce = Buffer.alloc(NONCE_BYTES);
  #count = 0;

  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** Of the next bytes in the order. */
  tag(bytes: Uint8Array): Uint8Array {
    this.#nonce.writeUIntBE(this.#count, NONCE_BYTES - 6, 6);
    this.#count += 1;
    const cipher = createCipheriv("chacha20-poly1305", this.#key, this.#nonce, {
      authTagLength: TAG_BYTES,
    });
    cipher.setAAD(bytes, { plaintextLength: 0 });
    cipher.final();
    return cipher.getAuthTag();
  }

  /** Whether this is the tag of the next bytes in the order. */
  matches(bytes: Uint8Array, tag: Uint8Array): boolean {
    return timingSafeEqual(this.tag(bytes), tag);
  }
}
