/** Moves elements without computing with them, as decoding files and storing weights need it. */
import { bytesPerElement } from "./dtype.ts";
import type { Tensor } from "./tensor.ts";

export type Elements = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

/** Elements as unsigned integers of their width, to be moved and compared. */
export function elementsOf({ dtype, bytes }: Tensor): Elements {
  const kinds = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array };
  const Kind = kinds[bytesPerElement(dtype) as keyof typeof kinds];
  // The bytes are copied, because a view of a file need not be aligned.
  return new Kind(new Uint8Array(bytes).buffer);
}

function bytesOf(elements: Elements): Uint8Array {
  return new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength);
}

/** A matrix with rows and columns exchanged. */
export function transpose(tensor: Tensor): Tensor {
  const [rows = 1, columns = 1] = tensor.shape;
  const from = elementsOf(tensor);
  const to = from.slice();
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      to[column * rows + row] = from[row * columns + column] as never;
    }
  }
  return { dtype: tensor.dtype, shape: [columns, rows], bytes: bytesOf(to) };
}
