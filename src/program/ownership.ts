/**
 * Which part of the flat vectors each rank of a machine looks after: it sums gradients there, and updates parameters and
 * slots. What others need of a part is given to them; slots are not needed by others until a checkpoint.
 * After Rajbhandari et al., "ZeRO", 2020 (its first stage), within one machine.
 */
import { bytesPerElement, type DType } from "../tensor/index.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import { elementsOf, offsetOf, type Piece } from "./pieces.ts";
import type { CollectiveStage, Extent, ProgramBuilder } from "./program.ts";

export interface Ownership {
  /** Of the ranks that share memory. */
  readonly group: string;
  /** This rank among them, and all of them by their ranks in the run. */
  readonly place: number;
  readonly ranks: readonly number[];
  /** Pieces, each cut into a part for each rank. Groups that are not among them belong to all. */
  readonly cuts: readonly (readonly Piece[])[];
}

/** The cuts of one group; none where it belongs to all. */
export function cutsOf(ownership: Ownership | undefined, group: LayoutGroup): readonly Piece[][] {
  const cuts = ownership?.cuts.filter(([first]) => first?.group.byteOffset === group.byteOffset);
  return (cuts ?? []).map((cut) => [...cut]);
}

/** What this rank looks after of a group: all of it, where it belongs to all. */
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
  /** Of ranks. */
  readonly group: string;
  readonly buffer: string;
  readonly dtype: DType;
  /** Elements of the buffer for a tile. */
  readonly perTile: number;
  /** Of the group's first tile. */
  readonly byteOffset: number;
}

/** All-gathers something that has so many elements for each tile of a piece. */
export function gatherTiles(
  program: ProgramBuilder,
  cut: readonly Piece[],
  { name, group, buffer, dtype, perTile, byteOffset }: GatherOptions,
): CollectiveStage {
  program.shared.add(buffer);
  const counts = cut.map(({ start, end }) => (end - start) * perTile);
  const count = counts.reduce((sum, own) => sum + own, 0);
  const first = (cut[0] as Piece).start * perTile * bytesPerElement(dtype);
  const data = { buffer, byteOffset: byteOffset + first };
  const call = { kind: "allGather" as const, count, counts, dtype };
  return { name, mode: "collective", group, call, data };
}

/** Of a buffer that is laid out as the pieces are. */
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
