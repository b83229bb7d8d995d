/**
 * Writes safetensors files directly from the tensors' memory, without a copy; a file is written as
 * a whole or not at all.
 */
import { createHash } from "node:crypto";
import { writeFileAtomic } from "../files/index.ts";
import type { Tensor } from "../tensor/index.ts";
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
  /** The content of the file in pieces, one after the other; tensors are not copied. */
  readonly pieces: readonly Uint8Array[];
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
    offset += tensor.bytes.byteLength;
  }
  return { pieces: [bytes, ...order.map(([, tensor]) => tensor.bytes)], offsets };
}

/** SHA-256, in hexadecimal, over the tensors' bytes in the order of their names' code units. */
export function weightsSha256(tensors: ReadonlyMap<string, Tensor>): string {
  const hash = createHash("sha256");
  const sorted = [...tensors].sort(([a], [b]) => compareNames(a, b));
  for (const [, { bytes }] of sorted) {
    // The bytes are hashed in parts, because one call takes less than 2 GiB.
    for (let at = 0; at < bytes.byteLength; at += 1 << 30)
      hash.update(bytes.subarray(at, at + (1 << 30)));
  }
  return hash.digest("hex");
}
