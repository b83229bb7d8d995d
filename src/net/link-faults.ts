/**
 * Faults of the network that a process does to its own links because `lockstep chaos` asks for it:
 * for a time their bytes are held back in both directions, and no link is closed. A run without
 * them pays for an entry in a set for each link.
 */
import type { Link } from "./link.ts";

export const LINK_FAULTS = ["partition", "slow-link"] as const;
export type LinkFault = (typeof LINK_FAULTS)[number];
/** The longest that a fault may last. */
export const MOST_FAULT_MS = 60_000;

/** The parts of each period in which a slow network moves nothing, and all. */
const STANDS_MS = 90;
const RUNS_MS = 20;

export class LinkFaults {
  #links: Link[] = [];
  #isCut = false;
  /** When the present fault is over, in milliseconds of `performance.now()`. */
  #endAt = 0;
  #timer: NodeJS.Timeout | undefined;

  /** A link that has been let in; it has the faults of those that are there. */
  add(link: Link): void {
    this.#links = this.#links.filter(({ isClosed }) => !isClosed);
    this.#links.push(link);
    link.isCut = this.#isCut;
  }

  /** Begins a fault, in place of the present one. It heals by itself after this time. */
  begin(fault: LinkFault, ms: number): void {
    this.end();
    this.#endAt = performance.now() + ms;
    if (fault === "partition") this.#cut(ms);
    else this.#slow();
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#set(false);
  }

  #slow(): void {
    if (performance.now() >= this.#endAt) return;
    this.#cut(STANDS_MS, () => {
      this.#timer = setTimeout(() => this.#slow(), RUNS_MS).unref();
    });
  }

  #cut(ms: number, then?: () => void): void {
    this.#set(true);
    this.#timer = setTimeout(() => {
      this.#set(false);
      then?.();
    }, ms).unref();
  }

  #set(isCut: boolean): void {
    this.#isCut = isCut;
    for (const link of this.#links) link.isCut = isCut;
  }
}
