/**
 * The memory that a program takes on its rank, by what it is for: of buffers that ranks share out, only the parts that this rank looks
 * after. What the process itself, its compiled graphs and its data take comes on top.
 */
import { peakOfIntermediates } from "../plan/index.ts";
import { kindOf, type MemoryKind } from "./buffers.ts";
import { type Program, residentBytes } from "./program.ts";

/** Bytes by kind; kinds of which there is nothing are left out. */
export type Resident = ReadonlyMap<MemoryKind, number>;

/** @param lanes micro-batches that run at once */
export function residentMemory(program: Program, lanes = 1): Resident {
  const found = new Map<MemoryKind, number>();
  const add = (kind: MemoryKind, bytes: number) => {
    if (bytes > 0) found.set(kind, (found.get(kind) ?? 0) + bytes);
  };
  for (const [name, spec] of program.buffers) add(kindOf(name), residentBytes(spec));
  const peaks = [...program.graphs.values()].map(({ graph, threads }) => {
    return peakOfIntermediates(graph) * (threads === 1 ? lanes : 1);
  });
  add("within a piece", Math.max(0, ...peaks));
  return found;
}

export function totalOf(resident: Resident): number {
  return [...resident.values()].reduce((sum, bytes) => sum + bytes, 0);
}
