/**
 * The memory that a program takes on its rank, by purpose: of buffers that ranks divide, only the
 * parts that this rank owns. The process itself, compiled graphs and data take memory in addition.
 */
import { peakOfIntermediates } from "../plan/index.ts";
import { GRADIENTS, PARAMETERS, SCRATCH } from "./buffers.ts";
import { type Program, residentBytes } from "./program.ts";

export type MemoryKind =
  | "parameters"
  | "gradients"
  | "optimizer slots"
  | "gathered units"
  | "buckets"
  | "between pieces"
  | "within a piece"
  | "other";

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

function kindOf(name: string): MemoryKind {
  if (name === PARAMETERS || name === SCRATCH) return "parameters";
  const [first] = name.split(".");
  switch (first) {
    case GRADIENTS:
      return "gradients";
    case "slot":
      return "optimizer slots";
    case "unit":
      return "gathered units";
    case "bucket":
      return "buckets";
    case "activations":
      return "between pieces";
    default:
      return "other";
  }
}
