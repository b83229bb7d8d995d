/**
 * Decides, from the sums of bytes that all ranks have told each other, whose memory is not what it
 * should be, and who has the right bytes. All ranks decide the same, because all know the same. It
 * knows no memory and no group.
 */

/**
 * What one rank tells of a part of the state: `whole` is what all ranks hold alike, `own` what only
 * the replicas of this rank's place hold.
 */
export interface Told {
  readonly whole: Sums;
  readonly own: Sums;
  /** Equal for ranks that hold the same `own` bytes. */
  readonly place: number;
}

export interface Sums {
  /** Right after the last commit. */
  readonly sealed: number;
  /** Before the next one is decided. */
  readonly now: number;
}

export type Part = "whole" | "own";
export const PARTS: readonly Part[] = ["whole", "own"];

/** A rank that has wrong bytes. */
export interface Wrong {
  readonly rank: number;
  readonly part: Part;
  /** The sum of the right bytes, and a rank that has them; undefined if that cannot be known. */
  readonly right: { readonly sum: number; readonly rank: number } | undefined;
  /**
   * Whether the bytes were wrong already right after the last commit, so that it may have been made
   * with them. If not, nothing that was committed has seen them.
   */
  readonly isOld: boolean;
}

/** Returns the ranks that have wrong bytes, ascending, part by part. */
export function wrongRanks(told: readonly Told[]): Wrong[] {
  return PARTS.flatMap((part) =>
    replicasOf(told, part).flatMap((ranks) => judge(told, part, ranks)),
  );
}

/** The sets of ranks that hold the same bytes. */
function replicasOf(told: readonly Told[], part: Part): number[][] {
  const sets = new Map<number, number[]>();
  for (const [rank, { place }] of told.entries()) {
    const key = part === "whole" ? 0 : place;
    sets.set(key, [...(sets.get(key) ?? []), rank]);
  }
  return [...sets.values()];
}

/**
 * Right is what more than half of the replicas had after the last commit. A rank whose bytes have
 * changed since then knows what they were: it has a vote, too. So two replicas are enough to heal a
 * change since the last commit, and three for an older one.
 */
function judge(told: readonly Told[], part: Part, ranks: readonly number[]): Wrong[] {
  const sumsOf = (rank: number) => (told[rank] as Told)[part];
  const votes = new Map<number, number>();
  for (const rank of ranks) {
    const { sealed } = sumsOf(rank);
    votes.set(sealed, (votes.get(sealed) ?? 0) + 1);
  }
  const truth = [...votes].find(([, count]) => 2 * count > ranks.length)?.[0];
  const source = ranks.find((rank) => truth !== undefined && sumsOf(rank).now === truth);
  const right =
    truth === undefined || source === undefined ? undefined : { sum: truth, rank: source };
  return ranks
    .filter((rank) => truth === undefined || sumsOf(rank).now !== truth)
    .map((rank) => ({ rank, part, right, isOld: sumsOf(rank).sealed !== truth }));
}
