/**
 * Memory that the ranks of one node share: they exchange its names, map it, and remove the names.
 * Memory whose name is gone is opened by its handle, if the system has any.
 */
import { LockstepError } from "../../errors.ts";
import { type Memory, openMemory } from "../../memory/index.ts";
import type { SharedRegion, Transport } from "../transport.ts";

/** Of a name, a zero, and the folder of a disk if the memory lies on one. */
const NAME_BYTES = 128 + 4096;

/**
 * All ranks call this together. Throws MEMORY_NAME for memory that others cannot open, and PEER_LOST
 * for a peer that has ended.
 */
export async function shareByName(
  transport: Pick<Transport, "rank" | "size" | "send" | "receive" | "barrier">,
  memory: Memory,
): Promise<SharedRegion> {
  const { rank, size } = transport;
  const { reachedAs } = memory;
  if (reachedAs === undefined) {
    throw new LockstepError("MEMORY_NAME", "Only memory with a name can be shared with peers.");
  }
  const mine = Buffer.alloc(NAME_BYTES);
  mine.write(`${reachedAs}\0${memory.folder ?? ""}`);
  const names = await Promise.all(
    Array.from({ length: size }, async (_, peer) => {
      if (peer === rank) return undefined;
      const theirs = Buffer.alloc(NAME_BYTES);
      const received = transport.receive(peer, theirs);
      await transport.send(peer, mine);
      await received;
      return theirs.toString();
    }),
  );
  const opened: (Memory | undefined)[] = [];
  const close = () => {
    for (const peer of opened) peer?.close();
  };
  try {
    for (const text of names) {
      const [name = "", folder = ""] = text?.split("\0") ?? [];
      opened.push(
        text === undefined ? undefined : openMemory(name, folder === "" ? undefined : folder),
      );
    }
  } catch (error) {
    close();
    // A name may be gone because its owner has ended since: then the barrier says that it is lost.
    await transport.barrier();
    throw error;
  }
  await transport.barrier();
  memory.unlink();
  return {
    memories: opened.map((peer) => peer ?? memory),
    close,
  };
}
