/**
 * A group of some ranks of a group. Its messages go through the parent group, with ranks
 * renumbered, in channels of their own.
 */
import { LockstepError } from "../errors.ts";
import { checkRank } from "../net/index.ts";
import { disseminationBarrier } from "./dissemination.ts";
import type { BarrierOptions, MessageOptions, Transport, Waiting } from "./transport.ts";

const CHANNELS = 2 ** 16;

/** Throws INVALID_OPTION unless `ranks` are distinct ranks of the group that include this one. */
export function checkSubgroup(
  { rank, size }: Pick<Transport, "rank" | "size">,
  ranks: readonly number[],
): void {
  for (const member of ranks) checkRank(member, size);
  if (new Set(ranks).size === ranks.length && ranks.includes(rank)) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `Rank ${rank} cannot create a group of the ranks ${ranks.join(", ")}.`,
    { hint: "Name each member once; only the members may create the group." },
  );
}

/** Returns nodes that have one rank each. */
export function eachAlone(size: number): number[][] {
  return Array.from({ length: size }, (_, rank) => [rank]);
}

/** Returns the nodes of a subgroup's members, by their ranks in it. */
export function nodesWithin(nodes: Transport["nodes"], ranks: readonly number[]): number[][] {
  const byNode = new Map<number, number[]>();
  for (const [index, rank] of ranks.entries()) {
    const node = nodes.findIndex((members) => members.includes(rank));
    const members = byNode.get(node);
    if (members === undefined) byNode.set(node, [index]);
    else members.push(index);
  }
  return [...byNode.values()];
}

/**
 * Returns a number that all members of a subgroup compute alike: FNV-1a of its ranks and of how
 * many times it was created.
 */
export function subgroupId(ranks: readonly number[], nth: number): number {
  let hash = 0x811c9dc5;
  for (const number of [...ranks, -1, nth]) {
    for (let shift = 0; shift < 32; shift += 8) {
      hash = Math.imul(hash ^ ((number >>> shift) & 0xff), 0x01000193);
    }
  }
  return (hash >>> 0) + 1; // 0 is the parent group
}

export class SubgroupCounter {
  readonly #counts = new Map<string, number>();

  /** Returns the id of the next subgroup of these ranks. */
  next(ranks: readonly number[]): number {
    const key = ranks.join();
    const nth = this.#counts.get(key) ?? 0;
    this.#counts.set(key, nth + 1);
    return subgroupId(ranks, nth);
  }
}

/** A subgroup over messages. It fails with its parent, and does not close it. */
export class MessageSubgroup implements Transport {
  readonly kind: string;
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly nodes: readonly (readonly number[])[];
  readonly signal: AbortSignal;
  readonly share = undefined;
  readonly #parent: Transport;
  readonly #ranks: readonly number[];
  readonly #firstChannel: number;
  readonly #counter: SubgroupCounter;

  constructor(parent: Transport, ranks: readonly number[], counter: SubgroupCounter) {
    checkSubgroup(parent, ranks);
    this.kind = parent.kind;
    this.rank = ranks.indexOf(parent.rank);
    this.size = ranks.length;
    this.generation = parent.generation;
    this.nodes = nodesWithin(parent.nodes, ranks);
    this.signal = parent.signal;
    this.#parent = parent;
    this.#ranks = [...ranks];
    this.#firstChannel = counter.next(ranks) * CHANNELS;
    this.#counter = counter;
  }

  send(to: number, bytes: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(to, this.size);
    return this.#parent.send(this.#ranks[to] as number, bytes, this.#within(options));
  }

  receive(from: number, into: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(from, this.size);
    return this.#parent.receive(this.#ranks[from] as number, into, this.#within(options));
  }

  barrier(options: BarrierOptions = {}): Waiting {
    return disseminationBarrier(this, options);
  }

  async subgroup(ranks: readonly number[]): Promise<Transport> {
    checkSubgroup(this, ranks);
    const named = ranks.map((rank) => this.#ranks[rank] as number);
    return new MessageSubgroup(this.#parent, named, this.#counter);
  }

  abort(reason: unknown): void {
    this.#parent.abort(reason);
  }

  async close(): Promise<void> {}

  #within(options: MessageOptions): MessageOptions {
    return { ...options, channel: this.#firstChannel + (options.channel ?? 0) };
  }
}
