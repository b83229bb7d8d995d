/** Keys of random layers: one for each sample, from the seed and the sample's place in the global order alone. */
import type { HostTensor } from "../engine/index.ts";

/** Writes the keys of the samples at `firstPosition` and after: the same on every worker, in any split. */
export function fillKeys(tensor: HostTensor, seed: number, firstPosition: number): void {
  const { buffer, byteOffset, length } = tensor.bytes;
  const keys = new Int32Array(buffer, byteOffset, length / 4);
  const base = mix(high(seed) ^ mix(seed | 0));
  for (let index = 0; index < keys.length; index++) {
    const position = firstPosition + index;
    keys[index] = mix(mix(base ^ (position | 0)) ^ high(position));
  }
}

/** What is above 32 bits. */
function high(value: number): number {
  return Math.floor(value / 2 ** 32);
}

/** The finalizer of MurmurHash3 (Appleby, public domain) over a shifted value, so that 0 does not stay 0. */
function mix(value: number): number {
  let x = (value + 0x9e3779b9) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
