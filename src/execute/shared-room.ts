/**
 * Checks that what the ranks of a node are about to share has room, before any of them allocates.
 * Otherwise some would get theirs and others not, and none could say how much is missing.
 */
import { type Group, tellNumbers } from "../collectives/index.ts";
import { LockstepError, MORE_SHARED_MEMORY } from "../errors.ts";
import { SHARED_FOLDER, sharedRoom } from "../memory/index.ts";
import type { BufferSpec } from "../program/index.ts";

/** Shared memory is taken in whole pages. */
const PAGE_BYTES = 4096;

/**
 * All ranks of a group call it together, and all get the same answer.
 * @param buffers those that this rank is about to allocate in shared memory
 * @throws OUT_OF_MEMORY naming what is needed and what is free
 */
export async function checkSharedRoom(group: Group, buffers: readonly BufferSpec[]): Promise<void> {
  const { transport } = group;
  if (transport.size === 1) return;
  const isShared = transport.share !== undefined;
  const needed = isShared ? buffers.reduce((sum, buffer) => sum + pagesOf(buffer), 0) : 0;
  const free = (isShared ? sharedRoom() : undefined) ?? Number.POSITIVE_INFINITY;
  const told = await tellNumbers(transport, [needed, free]);
  for (const ranks of transport.nodes) {
    const own = ranks.flatMap((rank) => [told[rank] ?? []]);
    const all = own.reduce((sum, [bytes = 0]) => sum + bytes, 0);
    const room = Math.min(...own.map(([, bytes = 0]) => bytes));
    if (all > room) throw tooSmall(ranks.length, all, room);
  }
}

/** The bytes of the pages that a buffer takes. */
function pagesOf({ byteLength, parts = [{ byteOffset: 0, byteLength }] }: BufferSpec): number {
  let [pages, end] = [0, 0];
  for (const part of [...parts].sort((a, b) => a.byteOffset - b.byteOffset)) {
    if (part.byteLength === 0) continue;
    const first = Math.max(end, Math.floor(part.byteOffset / PAGE_BYTES));
    end = Math.max(end, Math.ceil((part.byteOffset + part.byteLength) / PAGE_BYTES));
    pages += end - first;
  }
  return pages * PAGE_BYTES;
}

function tooSmall(workers: number, needed: number, free: number): LockstepError {
  const who = workers === 1 ? "The worker" : `The ${workers} workers`;
  return new LockstepError(
    "OUT_OF_MEMORY",
    `${who} of a machine would share ${megabytes(needed)} of memory, but ${SHARED_FOLDER} has ${megabytes(free)} free.`,
    { hint: MORE_SHARED_MEMORY, fields: { needed, free, folder: SHARED_FOLDER } },
  );
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
