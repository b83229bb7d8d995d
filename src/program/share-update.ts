/**
 * Updates that ranks share. An update of whole tensors (Muon's matrices) costs as much as a
 * micro-batch, so each rank updates some tensors, and new parameters and slots are gathered. Of
 * updates by element, slots stay with the rank that writes them.
 */
import { bytesPerElement, elementCount } from "../tensor/index.ts";
import type { LayoutEntry, LayoutGroup } from "./layout.ts";
import type { Extent, ProgramBuilder, Stage } from "./program.ts";

/**
 * The entries that each rank updates: consecutive ones, of about as many elements for each rank.
 */
export function shareEntries(group: LayoutGroup, ranks: number): readonly LayoutEntry[][] {
  const shares = Array.from({ length: ranks }, (): LayoutEntry[] => []);
  const total = group.entries.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  let before = 0;
  for (const entry of group.entries) {
    const count = elementCount(entry.type.shape);
    // An entry goes to the rank in whose even share its middle lies.
    const rank = Math.min(
      ranks - 1,
      Math.floor(((before + count / 2) / Math.max(1, total)) * ranks),
    );
    shares[rank]?.push(entry);
    before += count;
  }
  return shares;
}

/**
 * All-gathers a group of a flat buffer, of which each rank has written the entries of the given
 * names.
 */
export function gatherStage(
  program: ProgramBuilder,
  buffer: string,
  group: LayoutGroup,
  {
    names,
    group: ranks,
  }: { readonly names: readonly (readonly string[])[]; readonly group: string },
): Stage {
  program.shared.add(buffer);
  const width = bytesPerElement(group.dtype);
  const placeOf = new Map(
    group.entries.map(({ name, byteOffset }) => [name, (byteOffset - group.byteOffset) / width]),
  );
  // Each rank's part begins at its first entry. A rank without entries has an empty part.
  const starts = names.map((own) =>
    own.map((name) => placeOf.get(name)).find((at) => at !== undefined),
  );
  let next = group.length;
  const counts: number[] = [];
  for (let rank = starts.length - 1; rank >= 0; rank--) {
    const start = rank === 0 ? 0 : (starts[rank] ?? next);
    counts.unshift(next - start);
    next = start;
  }
  const call = { kind: "allGather" as const, counts, dtype: group.dtype };
  const data = { buffer, byteOffset: group.byteOffset };
  return { name: `new ${buffer} to all`, mode: "collective", group: ranks, call, data };
}

/** A part of a buffer that one rank alone has written. */
export interface Held extends Extent {
  readonly buffer: string;
  readonly rank: number;
}
