/**
 * The memory that a program takes on its rank, by purpose: of buffers that ranks divide, only the
 * parts that this rank owns. A run's data take memory in addition.
 */
import { peakOfIntermediates } from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import { kindOf, type MemoryKind } from "./buffers.ts";
import { type Program, residentBytes, type TensorRef } from "./program.ts";

/**
 * Private memory of a worker before it holds a tensor: Node.js and the modules (42 MiB), the plan
 * and compiled graphs (25), and what the arena of activations has lost between its chunks. Measured
 * by `npm run bench -- memory`.
 */
const PROCESS_BYTES = 78 * 2 ** 20;

/** Bytes by kind; kinds of which there is nothing are left out. */
export type Resident = ReadonlyMap<MemoryKind, number>;

/**
 * Values of the size of a parameter that its first values are made of. The arena in which they lie
 * keeps its memory, and pieces use it afterwards.
 */
const FIRST_VALUES = 3;

/**
 * What lies on a disk is not counted: see `onDisk`.
 * @param lanes micro-batches that run at once
 */
export function residentMemory(
  program: Program & { readonly parameters?: ReadonlyMap<string, TensorRef> },
  lanes = 1,
): Resident {
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
  const within = Math.max(0, ...peaks);
  add("within a piece", within);
  const parameters = [...(program.parameters?.values() ?? [])].map(({ type }) => byteLength(type));
  add("first values", FIRST_VALUES * Math.max(0, ...parameters) - within);
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
