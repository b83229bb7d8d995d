/**
 * Bounds the connections that have not proved themselves yet: there are few, and not for long. A
 * legitimate dialer that is closed too early dials again.
 */
import type net from "node:net";

const STRANGER_MS = 5000;
const MOST = 256;
const MOST_OF_ADDRESS = 64;

interface Stranger {
  readonly address: string;
  readonly timer: NodeJS.Timeout;
  hasSpoken: boolean;
}

export class Strangers {
  /** All such connections, the oldest first. */
  readonly #all = new Map<net.Socket, Stranger>();

  get count(): number {
    return this.#all.size;
  }

  /**
   * Adds a connection. If there are too many, the oldest is closed, silent ones first, because a
   * newcomer may be the one that is waited for.
   */
  add(socket: net.Socket): void {
    const address = socket.remoteAddress ?? "";
    const near = [...this.#all].filter(([, stranger]) => stranger.address === address);
    if (near.length >= MOST_OF_ADDRESS) this.#drop(near);
    else if (this.#all.size >= MOST) this.#drop([...this.#all]);
    const timer = setTimeout(() => socket.destroy(), STRANGER_MS);
    this.#all.set(socket, { address, timer, hasSpoken: false });
    socket.once("close", () => this.trust(socket));
  }

  /** Says that a connection has sent something valid. */
  heard(socket: net.Socket): void {
    const stranger = this.#all.get(socket);
    if (stranger !== undefined) stranger.hasSpoken = true;
  }

  /** Says that a connection has proved itself, or is gone. */
  trust(socket: net.Socket): void {
    clearTimeout(this.#all.get(socket)?.timer);
    this.#all.delete(socket);
  }

  close(): void {
    for (const socket of this.#all.keys()) socket.destroy();
  }

  #drop(some: readonly (readonly [net.Socket, Stranger])[]): void {
    const [socket] = some.find(([, { hasSpoken }]) => !hasSpoken) ?? some[0] ?? [];
    if (socket === undefined) return;
    this.trust(socket);
    socket.destroy();
  }
}
