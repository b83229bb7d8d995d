/** Frames on their way out of one end of a stream: sealed and given to the socket in their order. */
import type net from "node:net";
import { type Head, JOINED_BYTES, sealFrame } from "./frame.ts";
import type { Seal } from "./seal.ts";

interface Outgoing {
  readonly head: Head;
  readonly payload: Uint8Array;
  readonly done: (() => void) | undefined;
}

/**
 * The bytes that are given to the socket ahead. Later bytes are sealed when it is their turn, while
 * these are sent.
 */
const AHEAD_BYTES = 2 ** 22;

export class Outbox {
  /** Seals every frame from the time at which it is set. */
  seal: Seal | undefined;
  readonly #socket: () => net.Socket;
  readonly #queue: Outgoing[] = [];
  #queuedBytes = 0;
  /** Called when the queue is empty, after which nothing is written any more. */
  #emptied: (() => void) | undefined;

  /** The socket is asked for at each write, because TLS replaces it. */
  constructor(socket: () => net.Socket) {
    this.#socket = socket;
  }

  /** The bytes that wait to be sent. */
  get backlog(): number {
    return this.#socket().writableLength + this.#queuedBytes;
  }

  /** See `Link.write`. */
  write(head: Head, payload: Uint8Array, done: (() => void) | undefined): void {
    if (this.#emptied !== undefined) return;
    const isShort = payload.byteLength <= JOINED_BYTES;
    if (isShort && this.#queue.length === 0) {
      this.#put(sealFrame(head, payload, this.seal), done);
      return;
    }
    this.#queue.push({ head, payload: isShort ? payload.slice() : payload, done });
    this.#queuedBytes += payload.byteLength;
    this.#pump();
  }

  /** Takes no more frames, and calls `emptied` once all have been given to the socket. */
  end(emptied: () => void): void {
    if (this.#emptied !== undefined) return;
    this.#emptied = emptied;
    if (this.#queue.length === 0) emptied();
  }

  /** Forgets what waits. */
  clear(): void {
    this.#queue.length = 0;
    this.#queuedBytes = 0;
  }

  #pump(): void {
    while (this.#socket().writableLength < AHEAD_BYTES) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      this.#queuedBytes -= next.payload.byteLength;
      this.#put(sealFrame(next.head, next.payload, this.seal), next.done);
      if (this.#queue.length === 0) this.#emptied?.();
    }
  }

  #put(pieces: readonly Uint8Array[], done: (() => void) | undefined): void {
    const socket = this.#socket();
    const last = pieces.length - 1;
    if (last > 0) socket.cork();
    for (const [index, piece] of pieces.entries()) {
      if (index < last) socket.write(piece);
      else socket.write(piece, (error) => (error ? undefined : this.#written(done)));
    }
    if (last > 0) socket.uncork();
  }

  #written(done: (() => void) | undefined): void {
    done?.();
    if (this.#queue.length > 0) this.#pump();
  }
}
