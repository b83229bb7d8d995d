/**
 * Who computes which micro-batches of a step, and how their gradients become one sum. Every rank
 * has a range of micro-batches; in it lie nodes of the one binary tree over all of them. What a
 * rank computes of the tree alone is a contribution; the rest of the tree is computed from
 * contributions. So the sum has the same bits for any ranges.
 */
import { assert } from "../errors.ts";

/** Micro-batches [first, first + count). */
export interface Range {
  readonly first: number;
  readonly count: number;
}

/** A node of the tree that one rank computes by itself. */
export interface Contribution extends Range {
  readonly rank: number;
  /** Counts the contributions of one rank. */
  readonly slot: number;
}

/** A leaf is the index of a contribution; a pair is the sum of two parts. */
export type Combination = number | readonly [Combination, Combination];

export interface Shares {
  /** By rank; together they are all micro-batches, in order. */
  readonly ranges: readonly Range[];
  readonly contributions: readonly Contribution[];
  readonly combination: Combination;
  /** The most contributions that a rank has. */
  readonly slots: number;
}

/** Ranges that differ by one at most; the longer ones first. */
export function evenRanges(microBatches: number, ranks: number): Range[] {
  assert(ranks >= 1 && ranks <= microBatches, "every rank has a micro-batch");
  const least = Math.floor(microBatches / ranks);
  const longer = microBatches % ranks;
  return rangesOf(Array.from({ length: ranks }, (_, rank) => least + (rank < longer ? 1 : 0)));
}

/** Ranges of these lengths that follow each other. */
export function rangesOf(counts: readonly number[]): Range[] {
  let first = 0;
  return counts.map((count) => {
    const range = { first, count };
    first += count;
    return range;
  });
}

export interface ShareOptions {
  /**
   * Whether sums have the same bits for any ranges. Default: true. If not, a rank adds up all that
   * it computes, so that fewer bytes travel where ranges are no nodes of the tree.
   */
  readonly reproducible?: boolean | undefined;
  /**
   * Whether each rank leaves the last addition of its last contribution to the ranks that read both
   * halves in place, which saves two passes over memory. Default: false.
   */
  readonly leaveLast?: boolean;
}

export function planShares(ranges: readonly Range[], options: ShareOptions = {}): Shares {
  const { reproducible = true, leaveLast = false } = options;
  const total = ranges.reduce((sum, { first, count }) => {
    assert(first === sum && count >= 1, "ranges follow each other and none is empty");
    return sum + count;
  }, 0);
  const whole = reproducible
    ? nodesOf(ranges, total)
    : ranges.map((range, rank) => ({ ...range, rank, slot: 0 }));
  const contributions = leaveLast ? withHalvesOfLast(whole) : whole;
  const combination = combine(contributions, { first: 0, count: total });
  return { ranges, contributions, combination, slots: slotsOf(contributions) };
}

/** The largest nodes of the tree that lie in one range each, in order. */
function nodesOf(ranges: readonly Range[], total: number): Contribution[] {
  const nodes: Contribution[] = [];
  const used = ranges.map(() => 0);
  const visit = (node: Range): void => {
    const rank = firstWhere(ranges, ({ first }) => first > node.first) - 1;
    if (!isWithin(node, ranges[rank] as Range)) return halves(node).forEach(visit);
    const slot = used[rank] as number;
    used[rank] = slot + 1;
    nodes.push({ rank, slot, ...node });
  };
  visit({ first: 0, count: total });
  return nodes;
}

function withHalvesOfLast(all: readonly Contribution[]): Contribution[] {
  const last = new Map(all.map((from) => [from.rank, from]));
  return all.flatMap((from) => {
    if (last.get(from.rank) !== from || from.count === 1) return [from];
    const { rank, slot } = from;
    return halves(from).map((half, index) => ({ ...half, rank, slot: slot + index }));
  });
}

/** The place of the first for which it holds, in a list where it holds for all behind that one. */
function firstWhere<Item>(list: readonly Item[], holds: (item: Item) => boolean): number {
  let [least, most] = [0, list.length];
  while (least < most) {
    const middle = (least + most) >> 1;
    if (holds(list[middle] as Item)) most = middle;
    else least = middle + 1;
  }
  return least;
}

/**
 * How contributions make up a range: along the tree; one after the other where they are no nodes of
 * it.
 * @param among the indices of those that may lie in the range
 */
function combine(
  contributions: readonly Contribution[],
  range: Range,
  among: readonly number[] = indicesFrom(contributions, range),
): Combination {
  const own = among.filter((index) => isWithin(contributions[index] as Contribution, range));
  const [first, ...others] = own;
  assert(first !== undefined, "contributions make up the range");
  if (others.length === 0) return first;
  const [left, right] = halves(range) as [Range, Range];
  const isCut = own.every((index) => {
    const from = contributions[index] as Contribution;
    return isWithin(from, left) || isWithin(from, right);
  });
  if (isCut) return [combine(contributions, left, own), combine(contributions, right, own)];
  return others.reduce<Combination>((sum, index) => [sum, index], first);
}

/** The indices of the contributions that begin in a range; they are in its order. */
function indicesFrom(contributions: readonly Contribution[], range: Range): number[] {
  const start = firstWhere(contributions, ({ first }) => first >= range.first);
  const end = firstWhere(contributions, ({ first }) => first >= range.first + range.count);
  return Array.from({ length: end - start }, (_, index) => start + index);
}

/**
 * Both children of a node: the first is the largest power of two that leaves something for the
 * second.
 */
function halves({ first, count }: Range): Range[] {
  const half = 2 ** (Math.ceil(Math.log2(count)) - 1);
  return [
    { first, count: half },
    { first: first + half, count: count - half },
  ];
}

function isWithin(inner: Range, outer: Range): boolean {
  return outer.first <= inner.first && inner.first + inner.count <= outer.first + outer.count;
}

function slotsOf(contributions: readonly Contribution[]): number {
  return Math.max(...contributions.map(({ slot }) => slot + 1));
}

/**
 * The tree on two levels: contributions of ranks make those of nodes, and contributions of nodes
 * make the sum.
 */
export interface Levels {
  readonly ranks: Shares;
  /** The same with nodes in place of ranks. */
  readonly nodes: Shares;
  /** The ranks of each node, ascending. */
  readonly members: readonly (readonly number[])[];
  /** For each contribution of a node, how those of its ranks make it. */
  readonly within: readonly Combination[];
}

/** @param members the ranks of each node: consecutive numbers, beginning with the first node's */
export function planLevels(
  ranges: readonly Range[],
  members: readonly (readonly number[])[],
  options: ShareOptions = {},
): Levels {
  const leaveLast = members.some((own) => own.length > 1);
  const ranks = planShares(ranges, { ...options, leaveLast });
  assert(
    members.flat().every((rank, index) => rank === index),
    "nodes follow each other",
  );
  const ofNodes = members.map((own) => {
    const parts = own.map((rank) => ranges[rank] as Range);
    const count = parts.reduce((sum, part) => sum + part.count, 0);
    return { first: parts[0]?.first ?? 0, count };
  });
  const nodes = planShares(ofNodes, options);
  const within = nodes.contributions.map((node) => combine(ranks.contributions, node));
  return { ranks, nodes, members, within };
}
