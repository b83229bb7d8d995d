/**
 * The machines that had joined a run when its launcher ended. Their workers go on, and they dial the
 * next launcher, which waits for them for a short while.
 */
import type { MembershipState } from "../membership/index.ts";
import type { AgentOffer } from "../protocol/index.ts";
import { atMost } from "./at-most.ts";

/** How long a launcher waits for those that have not come back before it goes on without them. */
const BACK_MS = 5_000;

export class Returning {
  readonly #group: string;
  /** The nodes of the workers that were alive, by their numbers. */
  readonly #nodes: ReadonlyMap<number, string>;
  readonly #awaited: Set<string>;
  #isOver = false;
  #all: () => void = () => undefined;

  /** @param hosts nodes that the launcher dials itself */
  constructor(group: string, nodes: ReadonlyMap<number, string>, hosts: readonly string[]) {
    this.#group = group;
    this.#nodes = nodes;
    this.#awaited = new Set([...nodes.values()].filter((node) => !hosts.includes(node)));
  }

  /** The name of a machine that comes back with its workers; undefined for any other. */
  nameOf({ has }: AgentOffer): string | undefined {
    if (this.#isOver || has?.group !== this.#group) return undefined;
    const node = has.workers.map((worker) => this.#nodes.get(worker)).find((name) => name);
    return node !== undefined && this.#awaited.has(node) ? node : undefined;
  }

  /** Whether its workers are still waited for. They are seated now, or not at all. */
  hasCome(name: string): boolean {
    if (this.#isOver) return false;
    this.#awaited.delete(name);
    if (this.#awaited.size === 0) this.#all();
    return true;
  }

  /** Resolves when all have come, or when it is too late. */
  async end(): Promise<void> {
    if (this.#awaited.size > 0) {
      const all = new Promise<void>((resolve) => {
        this.#all = resolve;
      });
      await atMost(BACK_MS, all);
    }
    this.#isOver = true;
  }
}

/**
 * The workers of a stored run that may have gone on, and where they are. Undefined for a run that
 * had ended when its launcher did, so that there is nothing to go on with.
 */
export function livingOf({
  phase,
  workers,
}: Pick<MembershipState, "phase" | "workers">): ReadonlyMap<number, string> | undefined {
  if (phase === "ended") return undefined;
  const isGone = (status: string) => ["lost", "dismissed", "done"].includes(status);
  return new Map(
    workers.flatMap(({ id, node, status }) => (isGone(status) ? [] : [[id, node] as const])),
  );
}
