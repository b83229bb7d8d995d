/** Hashes any number of bytes. */
import type { Hash } from "node:crypto";

/** One call of Node.js takes less than 2 GiB. */
const MAX_HASH_BYTES = 2 ** 30;

export function addToHash(hash: Hash, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.byteLength; at += MAX_HASH_BYTES) {
    hash.update(bytes.subarray(at, at + MAX_HASH_BYTES));
  }
}
