/**
 * Caches compiled sessions by the hash of their graph: a model of 48 equal layers compiles a layer
 * once.
 */
import type { Session } from "./session.ts";

interface Entry {
  readonly session: Promise<Session>;
  users: number;
}

/** A reference to a shared session; the last `release` releases the session itself. */
export interface SessionShare {
  readonly session: Session;
  retain(): void;
  release(): void;
}

export class SessionCache {
  readonly #entries = new Map<string, Entry>();

  /** The number of sessions that are compiled or being compiled. */
  get size(): number {
    return this.#entries.size;
  }

  async take(key: string, create: () => Promise<Session>): Promise<SessionShare> {
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { session: create(), users: 0 };
      this.#entries.set(key, entry);
    }
    entry.users += 1;
    const mine = entry;
    const drop = (): boolean => {
      mine.users -= 1;
      if (mine.users > 0) return false;
      if (this.#entries.get(key) === mine) this.#entries.delete(key);
      return true;
    };
    try {
      const session = await mine.session;
      return {
        session,
        retain: () => {
          mine.users += 1;
        },
        release: () => {
          if (drop()) session.release();
        },
      };
    } catch (error) {
      drop();
      throw error;
    }
  }
}
