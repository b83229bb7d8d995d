/** Compares two checkpoints: what they are of, and their tensors byte by byte. */
import { formatType, sameType } from "../tensor/index.ts";
import { readTensor, type Source } from "./read.ts";

export interface Difference {
  readonly name: string;
  /** The end of a sentence that begins with the name. */
  readonly what: string;
}

/**
 * Returns the tensors that differ, in the order of the first checkpoint. It has room for one tensor
 * of each in memory.
 * @throws FILE_NOT_FOUND, FILE_CORRUPT, IO_FAILED, STORE
 */
export async function differences(one: Source, other: Source): Promise<Difference[]> {
  const found: Difference[] = [];
  for (const [name, type] of one.tensors) {
    const there = other.tensors.get(name);
    if (there === undefined) found.push({ name, what: "is only in the first" });
    else if (!sameType(type, there)) {
      found.push({ name, what: `is ${formatType(type)} and ${formatType(there)}` });
    } else {
      const [a, b] = [await readTensor(one, name), await readTensor(other, name)];
      if (Buffer.compare(a.bytes, b.bytes) !== 0) found.push({ name, what: "has other values" });
    }
  }
  await Promise.all([one.close(), other.close()]);
  for (const name of other.tensors.keys()) {
    if (!one.tensors.has(name)) found.push({ name, what: "is only in the second" });
  }
  return found;
}
