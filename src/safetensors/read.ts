/** Reads safetensors files: as a whole, in place over bytes in memory, or the header alone. */
import { openRange, type RangeReader } from "../files/index.ts";
import { type Tensor, tensorFromBytes } from "../tensor/index.ts";
import { decodeHeader, type Header, headerLength, LENGTH_BYTES } from "./format.ts";

export interface SafetensorsContent {
  /** The tensors by name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Returns tensors as views of `bytes`; nothing is copied. Throws FILE_CORRUPT; `path` is used in
 * its message.
 */
export function parseSafetensors(bytes: Uint8Array, path: string): SafetensorsContent {
  const length = headerLength(bytes, bytes.byteLength, path);
  const json = bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + length);
  const { entries, metadata } = decodeHeader(json, bytes.byteLength, path);
  const tensors = new Map(
    entries.map(({ name, dtype, shape, start, end }) => [
      name,
      tensorFromBytes(dtype, shape, bytes.subarray(start, end)),
    ]),
  );
  return { tensors, metadata };
}

/**
 * Reads the header of a file without its tensors. Throws FILE_NOT_FOUND, FILE_CORRUPT or IO_FAILED.
 */
export async function readSafetensorsHeader(path: string): Promise<Header> {
  const file = await openRange(path);
  try {
    return await readHeader(file, path);
  } finally {
    await file.close();
  }
}

/**
 * Reads a file tensor by tensor, so that its size has no limit. Throws FILE_NOT_FOUND, FILE_CORRUPT
 * or IO_FAILED.
 */
export async function readSafetensors(path: string): Promise<SafetensorsContent> {
  const { metadata } = await readSafetensorsHeader(path);
  const tensors = new Map<string, Tensor>();
  for await (const [name, tensor] of eachTensor(path)) tensors.set(name, tensor);
  return { tensors, metadata };
}

/**
 * Yields the tensors of a file in its order, each read when it is asked for. Throws FILE_NOT_FOUND,
 * FILE_CORRUPT or IO_FAILED.
 */
export async function* eachTensor(path: string): AsyncGenerator<readonly [string, Tensor]> {
  const file = await openRange(path);
  try {
    const { entries } = await readHeader(file, path);
    for (const { name, dtype, shape, start, end } of entries) {
      const bytes = new Uint8Array(end - start);
      await file.read(start, bytes);
      yield [name, tensorFromBytes(dtype, shape, bytes)];
    }
  } finally {
    await file.close();
  }
}

async function readHeader(file: RangeReader, path: string): Promise<Header> {
  const first = new Uint8Array(Math.min(LENGTH_BYTES, file.byteLength));
  await file.read(0, first);
  const json = new Uint8Array(headerLength(first, file.byteLength, path));
  await file.read(LENGTH_BYTES, json);
  return decodeHeader(json, file.byteLength, path);
}
