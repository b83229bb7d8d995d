/**
 * Messages between single ranks that travel while an instance runs other stages. It knows which of
 * them have not ended.
 */
import type { Group } from "../collectives/index.ts";
import type { BufferPart, MessageStage } from "../program/index.ts";

export class Messages {
  /** By number: messages that have begun and have not ended. */
  readonly #pending = new Map<number, Promise<void>>();

  /** Rejects with the group's error. @param bytesOf finds the memory of a part of a buffer */
  async run(
    { begins, ends }: MessageStage,
    group: Group,
    bytesOf: (part: BufferPart) => Uint8Array,
  ): Promise<void> {
    for (const { number, peer, isSent, part } of begins) {
      const bytes = bytesOf(part);
      const waiting = isSent ? group.send(peer, bytes) : group.receive(peer, bytes);
      if (waiting === undefined) continue;
      // Its failure is that of the group, which the next wait reports, too.
      waiting.catch(() => undefined);
      this.#pending.set(number, waiting);
    }
    const awaited = ends.flatMap((number) => this.#pending.get(number) ?? []);
    if (awaited.length > 0) await Promise.all(awaited);
    for (const number of ends) this.#pending.delete(number);
  }

  /** Messages that still travel may not use memory that is given back: they end with their group. */
  leave(group: Group | undefined): void {
    if (this.#pending.size > 0) group?.transport.abort("A rank has left in the middle of a step.");
    this.#pending.clear();
  }
}
