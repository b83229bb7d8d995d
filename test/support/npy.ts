/** Returns the bytes of a `.npy` file as NumPy writes them. */
import type { Tensor } from "../../src/tensor/index.ts";

const DESCRIPTIONS: Readonly<Record<string, string>> = { float32: "<f4", int32: "<i4" };
const PREFIX_BYTES = 10;

export function npyOf({ dtype, shape, bytes }: Tensor): Uint8Array {
  const dims = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${DESCRIPTIONS[dtype]}', 'fortran_order': False, 'shape': (${dims}), }`;
  const padded = text.padEnd(
    Math.ceil((PREFIX_BYTES + text.length + 1) / 64) * 64 - PREFIX_BYTES - 1,
  );
  const prefix = Buffer.from("\x93NUMPY\x01\x00\x00\x00", "latin1");
  prefix.writeUInt16LE(padded.length + 1, 8);
  return Buffer.concat([prefix, Buffer.from(`${padded}\n`), bytes]);
}
