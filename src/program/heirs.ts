/**
 * Who can give which part of a state after ranks were lost: a pure function of who held it, who
 * lives, and on which node. Every survivor finds the same, so nobody has to ask.
 */
import { type Gathered, type Held, holdersOf, type Owners } from "./ownership.ts";

/** What is left of a group of ranks, by their numbers in it. */
export interface Heritage {
  /** The ranks of each node. */
  readonly nodes: readonly (readonly number[])[];
  readonly owners: Owners | undefined;
  /** The ranks that live and have the state of the last committed step. */
  readonly living: readonly number[];
  /**
   * Those of them that have finished a commit without the lost ranks: what goes to all ranks at its
   * end has not come to them. They have also made the updates of the lost ranks of their nodes.
   */
  readonly finishing: readonly number[];
}

/** A rank that lives, and the rank of its node in whose memory it reads: itself, or another. */
export interface Giver {
  readonly rank: number;
  readonly memory: number;
}

export class Heirs {
  readonly #heritage: Heritage;
  readonly #known = new Map<string, readonly Giver[]>();

  constructor(heritage: Heritage) {
    this.#heritage = heritage;
  }

  /**
   * Who can give a part, in the order of their ranks and their own memory first; nobody if it is
   * lost.
   * @param part undefined for what every rank holds for itself
   */
  giversOf(part: Held | Gathered | undefined): readonly Giver[] {
    const isGathered = part !== undefined && "isMadeOnce" in part;
    const key = `${part?.rank} ${isGathered && part.isMadeOnce} ${isGathered}`;
    const found = this.#known.get(key) ?? this.#findGivers(part);
    this.#known.set(key, found);
    return found;
  }

  /** In whose memory a rank that lives finds a part; undefined if others have to send it. */
  memoryFor(rank: number, part: Held | Gathered | undefined): number | undefined {
    return this.giversOf(part).find((giver) => giver.rank === rank)?.memory;
  }

  #findGivers(part: Held | Gathered | undefined): Giver[] {
    const { living } = this.#heritage;
    if (part === undefined) return living.map((rank) => ({ rank, memory: rank }));
    const memories = this.#memoriesOf(part);
    return living.flatMap((rank) => {
      const near = this.#nodeOf(rank);
      const seen = memories.filter((memory) => near.includes(memory));
      const own = seen.filter((memory) => memory === rank);
      return [...own, ...seen.filter((memory) => memory !== rank)].map((memory) => {
        return { rank, memory };
      });
    });
  }

  /** The ranks whose memory has a part. That of a lost one has it if its update was finished. */
  #memoriesOf(part: Held | Gathered): number[] {
    const { owners, living, finishing } = this.#heritage;
    const isGathered = "isMadeOnce" in part;
    const isMadeOnce = owners === undefined || (isGathered && part.isMadeOnce);
    const makers = isMadeOnce ? [part.rank] : holdersOf(owners, part.rank);
    const all = isGathered ? living.filter((rank) => !finishing.includes(rank)) : [];
    const held = [...new Set([...makers, ...all])];
    return [
      ...held.filter((rank) => living.includes(rank)),
      ...held.filter((rank) => !living.includes(rank) && this.#isFinished(rank)),
    ];
  }

  /**
   * Whether the memory of a lost rank is that of the last committed step: a survivor of its node has
   * finished its commit, or one of its shard group has come to the end of the commit, which it does
   * only together with the others.
   */
  #isFinished(lost: number): boolean {
    const { owners, living, finishing } = this.#heritage;
    const near = this.#nodeOf(lost).filter((rank) => living.includes(rank));
    if (near.some((rank) => finishing.includes(rank))) return true;
    const group = owners?.groups.find((ranks) => ranks.includes(lost));
    return near.some((rank) => group === undefined || group.includes(rank));
  }

  #nodeOf(rank: number): readonly number[] {
    return this.#heritage.nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
  }
}
