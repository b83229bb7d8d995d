/**
 * Which parts of the flat vectors each rank of a group owns. A rank sums the gradients of its parts
 * and updates parameters and slots there; new parameters are gathered. Other ranks need its slots
 * only for a checkpoint. After Rajbhandari et al., "ZeRO", 2020 (its first stage).
 */
import { bytesPerElement, type DType } from "../tensor/index.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import { elementsOf, offsetOf, type Piece } from "./pieces.ts";
import type { CollectiveStage, Extent, ProgramBuilder } from "./program.ts";

export interface Ownership {
  /** The name of the group of ranks that share out the parts. */
  readonly group: string;
  /** Whether they read each other's memory in place; else messages go between them. */
  readonly isInPlace: boolean;
  /** The place of this rank among them, and their ranks in the run. */
  readonly place: number;
  readonly ranks: readonly number[];
  /**
   * Pieces, each cut into a part for each rank. Every rank owns all of the groups that have no
   * pieces here.
   */
  readonly cuts: readonly (readonly Piece[])[];
}

/** All ranks of the group have come here. */
export function barrier({ group }: Ownership, name: string): CollectiveStage {
  return { name, mode: "collective", group, call: { kind: "barrier" } };
}

/** The cuts of one group; none where every rank owns all of it. */
export function cutsOf(ownership: Ownership | undefined, group: LayoutGroup): readonly Piece[][] {
  const cuts = ownership?.cuts.filter(([first]) => first?.group.byteOffset === group.byteOffset);
  return (cuts ?? []).map((cut) => [...cut]);
}

/** The pieces of a group that this rank owns. */
export function ownPieces(
  ownership: Ownership | undefined,
  group: LayoutGroup,
  tile: number,
): Piece[] {
  const cuts = cutsOf(ownership, group);
  if (ownership === undefined || cuts.length === 0) {
    return [{ group, start: 0, end: group.length / tile }];
  }
  return cuts.map((cut) => ({ ...(cut[ownership.place] as Piece), group }));
}

export interface GatherOptions {
  readonly name: string;
  /** The name of the group of ranks. */
  readonly group: string;
  readonly buffer: string;
  readonly dtype: DType;
  /** How many elements of the buffer belong to a tile. */
  readonly perTile: number;
  /** Where the elements of the group's first tile begin. */
  readonly byteOffset: number;
}

/** All-gathers a buffer that has the same number of elements for each tile of a piece. */
export function gatherTiles(
  program: ProgramBuilder,
  cut: readonly Piece[],
  { name, group, buffer, dtype, perTile, byteOffset }: GatherOptions,
): CollectiveStage {
  program.shared.add(buffer);
  const counts = cut.map(({ start, end }) => (end - start) * perTile);
  const first = (cut[0] as Piece).start * perTile * bytesPerElement(dtype);
  const data = { buffer, byteOffset: byteOffset + first };
  const call = { kind: "allGather" as const, counts, dtype };
  return { name, mode: "collective", group, call, data };
}

/** All-gathers the pieces of a buffer that has their layout. */
export function gatherParts(
  program: ProgramBuilder,
  layout: Layout,
  cut: readonly Piece[],
  { name, group, buffer }: Pick<GatherOptions, "name" | "group" | "buffer">,
): CollectiveStage {
  const { dtype, byteOffset } = (cut[0] as Piece).group;
  const perTile = layout.tile;
  return gatherTiles(program, cut, { name, group, buffer, dtype, perTile, byteOffset });
}

/** What this rank touches of a buffer with this layout: what it looks after, and groups that belong to all. */
export function ownExtents(layout: Layout, ownership: Ownership | undefined): Extent[] {
  const pieces = layout.groups.flatMap((group) => ownPieces(ownership, group, layout.tile));
  return pieces.map((piece) => extentOf(layout, piece)).filter(({ byteLength }) => byteLength > 0);
}

/** What is left of a buffer without the parts that other ranks look after. */
export function withoutExtents(byteLength: number, others: readonly Extent[]): Extent[] {
  const rest: Extent[] = [];
  let at = 0;
  const sorted = others.toSorted((a, b) => a.byteOffset - b.byteOffset);
  for (const other of [...sorted, { byteOffset: byteLength, byteLength: 0 }]) {
    if (other.byteOffset > at) rest.push({ byteOffset: at, byteLength: other.byteOffset - at });
    at = Math.max(at, other.byteOffset + other.byteLength);
  }
  return rest;
}

export function extentOf(layout: Layout, piece: Piece): Extent {
  const byteLength = elementsOf(layout, piece) * bytesPerElement(piece.group.dtype);
  return { byteOffset: offsetOf(layout, piece), byteLength };
}
