/** Places by name: all tensors of a flat buffer. */
import type { Layout } from "./layout.ts";
import type { TensorRef } from "./program.ts";

/** Every tensor of a layout, in this buffer. */
export function refsOf(layout: Layout, buffer: string): Map<string, TensorRef> {
  return new Map(
    [...layout.entries.values()].map(({ name, type, byteOffset }) => [
      name,
      { buffer, byteOffset, type },
    ]),
  );
}
