/**
 * Writes safetensors files from tensors in place, without a copy. A file is written as a whole or
 * not at all.
 */
import { createHash, type Hash } from "node:crypto";
import { addToHash, writeFileAtomic } from "../files/index.ts";
import { byteLength, piecesOf, type Tensor } from "../tensor/index.ts";
import { compareNames, encodeHeader } from "./format.ts";

/** Throws DISK_FULL or IO_FAILED; the old file is then untouched. */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await writeFileAtomic(path, encodeSafetensors(tensors, metadata).pieces);
}

export interface SafetensorsPieces {
  /**
   * The pieces that make the file, in order. Tensors are not copied, and each is read when it is
   * its turn.
   */
  readonly pieces: Iterable<Uint8Array>;
  /** The offset of each tensor in the file, by name. */
  readonly offsets: ReadonlyMap<string, number>;
}

export function encodeSafetensors(
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsPieces {
  const { bytes, order } = encodeHeader(tensors, metadata);
  const offsets = new Map<string, number>();
  let offset = bytes.byteLength;
  for (const [name, tensor] of order) {
    offsets.set(name, offset);
    offset += byteLength(tensor);
  }
  const pieces = function* () {
    yield bytes;
    for (const [, tensor] of order) yield* piecesOf(tensor);
  };
  return { pieces: { [Symbol.iterator]: pieces }, offsets };
}

/** Feeds a tensor's bytes to a hash. */
export function hashBytes(hash: Hash, tensor: Tensor): void {
  for (const piece of piecesOf(tensor)) addToHash(hash, piece);
}

/** SHA-256, in hexadecimal, over the tensors' bytes in the order of their names' code units. */
export function weightsSha256(tensors: ReadonlyMap<string, Tensor>): string {
  const hash = createHash("sha256");
  const sorted = [...tensors].sort(([a], [b]) => compareNames(a, b));
  for (const [, tensor] of sorted) hashBytes(hash, tensor);
  return hash.digest("hex");
}
