/**
 * The order in which one rank computes its micro-batches and sums them to its contributions.
 */
import { assert } from "../errors.ts";
import type { Contribution } from "./shares.ts";

/** One addition of the tree, after micro-batch `after`: buffer `from` into buffer `into`. */
export interface TreeSum {
  readonly after: number;
  readonly from: number;
  readonly into: number;
}

/** Micro-batches are counted from the first of the rank. */
export interface Accumulation {
  /**
   * The buffer that each micro-batch writes. The sum of contribution `slot` is in buffer `slot`.
   */
  readonly leaves: readonly number[];
  readonly sums: readonly TreeSum[];
  /** Micro-batches that run at once, and then their sums. */
  readonly waves: readonly { readonly first: number; readonly last: number }[];
  readonly buffers: number;
}

/** A contribution while it is made: nodes of its tree that are there, from left to right. */
interface Growing extends Pick<Contribution, "slot" | "count"> {
  readonly firstWave: number;
  readonly lastWave: number;
  readonly open: { level: number; readonly buffer: number }[];
  made: number;
}

/**
 * Micro-batches run in order, `lanes` at a time, and a wave is summed as far as the tree goes. Node
 * j of level k is the sum of micro-batches [j·2ᵏ, (j+1)·2ᵏ) of a contribution, so the order
 * of additions depends on its length alone. Contributions come in the order of their slots. A
 * contribution of n micro-batches takes about log₂(n) + lanes buffers.
 */
export function planAccumulation(
  contributions: readonly Pick<Contribution, "slot" | "count">[],
  lanes: number,
): Accumulation {
  const growing = grow(contributions, lanes);
  const total = contributions.reduce((sum, { count }) => sum + count, 0);
  const leaves: number[] = [];
  const sums: TreeSum[] = [];
  const waves: { first: number; last: number }[] = [];
  const used = new Set<number>();
  for (let first = 0; first < total; first += lanes) {
    const last = Math.min(first + lanes, total) - 1;
    waves.push({ first, last });
    for (let leaf = first; leaf <= last; leaf++) {
      const into = growing.find(({ made, count }) => made < count) as Growing;
      const buffer = into.made === 0 ? into.slot : freeBuffer(growing, used, into);
      assert(!used.has(buffer), "a contribution begins in the buffer in which it ends");
      used.add(buffer);
      leaves.push(buffer);
      into.open.push({ level: 0, buffer });
      into.made += 1;
    }
    for (const one of growing) {
      for (const { from, into } of merges(one)) {
        sums.push({ after: last, from, into });
        used.delete(from);
      }
    }
  }
  return { leaves, sums, waves, buffers: Math.max(...leaves) + 1 };
}

function grow(
  contributions: readonly Pick<Contribution, "slot" | "count">[],
  lanes: number,
): Growing[] {
  let before = 0;
  return contributions.map(({ slot, count }) => {
    const firstWave = Math.floor(before / lanes);
    before += count;
    const lastWave = Math.floor((before - 1) / lanes);
    return { slot, count, firstWave, lastWave, open: [], made: 0 };
  });
}

/** The first free buffer in which no contribution begins before `current` is done. */
function freeBuffer(growing: readonly Growing[], used: Set<number>, current: Growing): number {
  let buffer = 0;
  const isWanted = (candidate: number) =>
    growing.some(({ slot, firstWave, made }) => {
      return slot === candidate && made === 0 && firstWave <= current.lastWave;
    });
  while (used.has(buffer) || isWanted(buffer)) buffer += 1;
  return buffer;
}

/** The additions of neighbours of one level, and all others when the contribution is complete. */
function merges({ open, made, count }: Growing): { from: number; into: number }[] {
  const found: { from: number; into: number }[] = [];
  const merge = (at: number): void => {
    const [from] = open.splice(at, 1) as [(typeof open)[number]];
    const into = open[at - 1] as (typeof open)[number];
    found.push({ from: from.buffer, into: into.buffer });
    into.level += 1;
  };
  // What lies before the first pair of one level has higher levels: the pair is a node of the tree.
  const pair = () => open.findIndex((node, at) => node.level === open[at - 1]?.level);
  for (let at = pair(); at > 0; at = pair()) merge(at);
  if (made === count) while (open.length > 1) merge(open.length - 1);
  return found;
}
