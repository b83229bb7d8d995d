/** Writes safetensors files from tensors where they lie: no copy, whole or not at all. */
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
  const { bytes, order } = encodeHeader(tensors, metadata);
  await writeFileAtomic(path, [bytes, ...order.map((tensor) => tensor.bytes)]);
}

/** SHA-256, in hexadecimal, over the tensors' bytes in the order of their names' code units. */
export function weightsSha256(tensors: ReadonlyMap<string, Tensor>): string {
  const hash = createHash("sha256");
  const sorted = [...tensors].sort(([a], [b]) => compareNames(a, b));
  for (const [, { bytes }] of sorted) {
    // One call takes less than 2 GiB.
    for (let at = 0; at < bytes.byteLength; at += 1 << 30)
      hash.update(bytes.subarray(at, at + (1 << 30)));
  }
  return hash.digest("hex");
}
