/**
 * The memory that a program takes on its rank, by purpose: of buffers that ranks divide, only the
 * parts that this rank owns. A run's data take memory in addition.
 */
import { PROCESS_BYTES, peakOfIntermediates } from "../plan/index.ts";
import { kindOf, type MemoryKind } from "./buffers.ts";
import { type Program, residentBytes } from "./program.ts";

/** Bytes by kind; kinds of which there is nothing are left out. */
export type Resident = ReadonlyMap<MemoryKind, number>;

/**
 * What lies on a disk is not counted: see `onDisk`.
 * @param lanes micro-batches that run at once
 */
export function residentMemory(program: Program, lanes = 1): Resident {
  const found = new Map<MemoryKind, number>();
  const add = (kind: MemoryKind, bytes: number) => {
    if (bytes > 0) found.set(kind, (found.get(kind) ?? 0) + bytes);
  };
  for (const [name, spec] of program.buffers) {
    if (spec.space !== "disk") add(kindOf(name), residentBytes(spec));
  }
  const peaks = [...program.graphs.values()].map(({ graph, threads }) => {
    return peakOfIntermediates(graph) * (threads === 1 ? lanes : 1);
  });
  add("within a piece", Math.max(0, ...peaks));
  add("the process itself", PROCESS_BYTES);
  return found;
}

/** What a program keeps on the disk of its rank instead, in bytes by kind. */
export function onDisk({ buffers }: Program): Resident {
  const found = new Map<MemoryKind, number>();
  for (const [name, spec] of buffers) {
    if (spec.space !== "disk") continue;
    const kind = kindOf(name);
    found.set(kind, (found.get(kind) ?? 0) + residentBytes(spec));
  }
  return found;
}

export function totalOf(resident: Resident): number {
  return [...resident.values()].reduce((sum, bytes) => sum + bytes, 0);
}
