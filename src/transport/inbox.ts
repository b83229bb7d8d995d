/**
 * Matches messages with receives, in order, within a channel of one pair of ranks. A message that
 * arrives before its receive is kept, up to a bound.
 */

/** A receive that waits for its message. */
export interface Posted {
  readonly into: Uint8Array;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

interface Lane {
  readonly posted: Posted[];
  readonly early: Uint8Array[];
}

export class Inbox {
  readonly #lanes = new Map<number, Lane>();
  #earlyBytes = 0;
  #earlyCount = 0;

  /** Bytes of messages that arrived before their receive. */
  get earlyBytes(): number {
    return this.#earlyBytes;
  }

  get earlyCount(): number {
    return this.#earlyCount;
  }

  /** Takes the next receive of this channel, if no earlier message is due to it. */
  takePosted(channel: number): Posted | undefined {
    return this.#lanes.get(channel)?.posted.shift();
  }

  keepEarly(channel: number, message: Uint8Array): void {
    this.#lane(channel).early.push(message);
    this.#earlyBytes += message.byteLength;
    this.#earlyCount += 1;
  }

  takeEarly(channel: number): Uint8Array | undefined {
    const message = this.#lanes.get(channel)?.early.shift();
    if (message === undefined) return undefined;
    this.#earlyBytes -= message.byteLength;
    this.#earlyCount -= 1;
    return message;
  }

  post(channel: number, posted: Posted): void {
    this.#lane(channel).posted.push(posted);
  }

  #lane(channel: number): Lane {
    let lane = this.#lanes.get(channel);
    if (lane === undefined) {
      lane = { posted: [], early: [] };
      this.#lanes.set(channel, lane);
    }
    return lane;
  }
}
