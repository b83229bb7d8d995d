/**
 * Lowers the sum of all ranks' contributions to stages, for some spans of the flat gradient.
 * Within a node, every rank reads its part of its neighbours' buffers in place and sums it (a
 * reduce-scatter). Between nodes, the ranks that have the same place in their nodes exchange parts
 * of these sums by all-to-all, and add them up. On a single node, the runs that sum also write the
 * sums to the memory of the neighbours that need them; otherwise all-gathers bring them there. All
 * additions follow the one tree over micro-batches, so any placement of ranks on nodes gives the
 * same bits.
 */
import { assert } from "../errors.ts";
import { COPIES, NODE_SUMS } from "./buffers.ts";
import type { LayoutGroup } from "./layout.ts";
import type { RankGroups } from "./levels.ts";
import { gatherParts } from "./ownership.ts";
import {
  type BufferPlace,
  barrier,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type TensorRef,
} from "./program.ts";
import { treeRun, treeStage } from "./runs.ts";
import type { Combination, Levels } from "./shares.ts";
import {
  additionsOf,
  blocksOf,
  cutEvenly,
  extentOf,
  lengthOf,
  type Span,
  spanRef,
} from "./spans.ts";

export interface ReduceOptions {
  readonly rank: number;
  /** The names of the groups of ranks. */
  readonly names: RankGroups["names"];
  readonly levels: Levels;
  /** The buffer of a rank's contribution. That of slot 0 gets the sum. */
  readonly bufferOf: (slot: number) => string;
  /**
   * Groups whose sums are not gathered within a node, because each rank updates its part alone.
   * Default: none.
   */
  readonly keeps?: (group: LayoutGroup) => boolean;
}

/** The place where a tile of a contribution is read; contributions are numbered as in `Shares`. */
type PlaceOf = (contribution: number, tile: Span) => TensorRef;

/** The runs and collectives that sum one span. */
interface SpanStages {
  /** Sum the contributions of this node. */
  readonly local: readonly Run[];
  readonly exchanges: readonly CollectiveStage[];
  readonly totals: readonly Run[];
  readonly gathers: readonly CollectiveStage[];
}

/**
 * Makes the stages of spans, call by call. Intermediate sums of all calls share their places: the
 * stages of one call end before those of the next begin.
 */
export class Reducer {
  readonly #program: ProgramBuilder;
  readonly #options: ReduceOptions;
  /**
   * The number of this rank's node, the ranks of that node, and the place of this rank among them.
   */
  readonly #node: number;
  readonly #neighbours: readonly number[];
  readonly #place: number;
  /** Whether there are several nodes of several ranks, so that sums have two levels. */
  readonly #isNested: boolean;
  /** The groups of ranks that sum in place, and that exchange parts by messages. */
  readonly #inner: string;
  readonly #outer: string;
  /** The bytes that are taken of each buffer for intermediate sums. */
  readonly #taken = new Map<string, number>();

  constructor(program: ProgramBuilder, options: ReduceOptions) {
    this.#program = program;
    this.#options = options;
    const { rank, names, levels } = options;
    this.#node = levels.members.findIndex((own) => own.includes(rank));
    this.#neighbours = levels.members[this.#node] ?? [];
    this.#place = this.#neighbours.indexOf(rank);
    this.#isNested = this.#neighbours.length > 1 && levels.members.length > 1;
    this.#inner = this.#isNested ? names.inner : names.all;
    this.#outer = this.#isNested ? names.outer : names.all;
  }

  /** @param what what names of stages call the spans */
  stages(spans: readonly Span[], what: string): (RunStage | CollectiveStage)[] {
    this.#taken.clear();
    const all = spans.map((span) => this.#ofSpan(span, what));
    const local = all.flatMap((own) => own.local);
    const totals = all.flatMap((own) => own.totals);
    const neighbours = this.#neighbours.length;
    // Neighbours write to each other's memory, so none goes on before all have written.
    const isSpread = spans.some(({ group }) => this.#isSpread(group));
    return [
      ...(neighbours > 1 ? [barrier(`neighbours have ${what}`, this.#inner)] : []),
      ...(local.length > 0 ? [treeStage(`sums of this node, ${what}`, local)] : []),
      ...all.flatMap(({ exchanges }) => exchanges),
      treeStage(`sum of ${what}`, totals),
      ...(isSpread ? [barrier(`neighbours have the sum of ${what}`, this.#inner)] : []),
      ...all.flatMap(({ gathers }) => gathers),
    ];
  }

  #keeps(group: LayoutGroup): boolean {
    return this.#options.keeps?.(group) ?? false;
  }

  /**
   * Whether each rank writes the sums of its part to its neighbours' memory too, as it makes them.
   */
  #isSpread(group: LayoutGroup): boolean {
    const isOneNode = this.#options.levels.members.length === 1;
    return isOneNode && this.#neighbours.length > 1 && !this.#keeps(group);
  }

  #ofSpan(span: Span, what: string): SpanStages {
    const { members, ranks, nodes } = this.#options.levels;
    const parts = cutEvenly(span, this.#neighbours.length);
    const part = parts[this.#place] as Span;
    if (members.length === 1) {
      const { rank } = this.#options;
      const others = this.#neighbours.filter((peer) => peer !== rank);
      const to = this.#isSpread(span.group) ? others : [];
      const totals = this.#totals(part, ranks.combination, this.#inPlace, to);
      return { local: [], exchanges: [], totals, gathers: [] };
    }
    const isGathered = parts.length > 1 && !this.#keeps(span.group);
    const gathers = isGathered ? [this.#gather(parts, what, this.#inner)] : [];
    const subparts = cutEvenly(part, members.length);
    const { runs: local, sources } = this.#isNested
      ? this.#sumNeighbours(part)
      : { runs: [], sources: this.#contributions(part) };
    const { stages: exchanges, placeOf } = this.#exchange(subparts, sources, what);
    const totals = this.#totals(subparts[this.#node] as Span, nodes.combination, placeOf);
    const outer = this.#gather(subparts, what, this.#outer);
    return { local, exchanges, totals, gathers: [outer, ...gathers] };
  }

  /** The places of contributions in the memory of this rank and of its neighbours. */
  readonly #inPlace: PlaceOf = (contribution, tile) => {
    const { rank, levels, bufferOf } = this.#options;
    const from = levels.ranks.contributions[contribution];
    const place = spanRef(tile, bufferOf(from?.slot ?? 0));
    return from?.rank === rank ? place : { ...place, rank: from?.rank ?? 0 };
  };

  /** Where this rank's own contributions to a part begin, by slot. */
  #contributions(part: Span): BufferPlace[] {
    const { rank, levels, bufferOf } = this.#options;
    const own = levels.ranks.contributions.filter((from) => from.rank === rank);
    const { byteOffset } = extentOf(part);
    return own.map(({ slot }) => ({ buffer: bufferOf(slot), byteOffset }));
  }

  /** Sums this node's contributions to a part, each in a place of its own. */
  #sumNeighbours(part: Span): { runs: Run[]; sources: BufferPlace[] } {
    const { nodes, within } = this.#options.levels;
    const own = within.filter((_, index) => nodes.contributions[index]?.rank === this.#node);
    const sources = own.map(() => this.#room(NODE_SUMS, extentOf(part).byteLength));
    const runs = own.flatMap((combination, index) => {
      const to = sources[index] as BufferPlace;
      return this.#sums(part, combination, this.#inPlace, (tile) => refWithin(to, part, tile));
    });
    return { runs, sources };
  }

  /**
   * Exchanges what nodes contribute to each other's subparts, slot by slot. What this node itself
   * contributes to its own subpart is read where it lies.
   */
  #exchange(
    subparts: readonly Span[],
    sources: readonly BufferPlace[],
    what: string,
  ): { stages: CollectiveStage[]; placeOf: PlaceOf } {
    const { contributions, slots } = this.#options.levels.nodes;
    const own = subparts[this.#node] as Span;
    const { dtype, key } = own.group;
    const bytes = extentOf(own).byteLength;
    const before = extentOf(own).byteOffset - extentOf(subparts[0] as Span).byteOffset;
    /** Where the contributions to the own subpart lie, by contribution. */
    const places: BufferPlace[] = [];
    const stages = Array.from({ length: slots }, (_, slot): CollectiveStage => {
      const given = contributions.flatMap((from, index) => (from.slot === slot ? [index] : []));
      const giverOf = (index: number) => contributions[index]?.rank;
      const received = given.filter((index) => giverOf(index) !== this.#node);
      const into = this.#room(COPIES, bytes * received.length);
      for (const [at, index] of received.entries()) {
        places[index] = { ...into, byteOffset: into.byteOffset + at * bytes };
      }
      const data = sources[slot] ?? sources[0];
      assert(data !== undefined, "a node has a contribution");
      const isGiver = received.length < given.length;
      for (const index of given.filter((each) => giverOf(each) === this.#node)) {
        places[index] = { ...data, byteOffset: data.byteOffset + before };
      }
      const givers = new Set(received.map(giverOf));
      const sendCounts = subparts.map((to) => (isGiver ? lengthOf([to]) : 0));
      const receiveCounts = subparts.map((__, from) => (givers.has(from) ? lengthOf([own]) : 0));
      return {
        name: `${key} of ${what} to those who sum it`,
        mode: "collective",
        group: this.#outer,
        call: { kind: "allToAll", sendCounts, receiveCounts, dtype },
        data,
        into,
      };
    });
    const placeOf: PlaceOf = (contribution, tile) =>
      refWithin(places[contribution] as BufferPlace, own, tile);
    return { stages, placeOf };
  }

  /** @param others the neighbours whose memory gets the sums too */
  #totals(
    part: Span,
    combination: Combination,
    placeOf: PlaceOf,
    others: readonly number[] = [],
  ): Run[] {
    const totalOf = (tile: Span) => spanRef(tile, this.#options.bufferOf(0));
    return this.#sums(part, combination, placeOf, totalOf, others);
  }

  #sums(
    part: Span,
    combination: Combination,
    placeOf: PlaceOf,
    totalOf: (tile: Span) => TensorRef,
    others: readonly number[] = [],
  ): Run[] {
    return blocksOf(part).map((block) => {
      const tiles = additionsOf(block);
      const totals = tiles.map(totalOf);
      const copies = others.map((rank) => totals.map((total) => ({ ...total, rank })));
      const partOf = (leaf: number, tile: number) => placeOf(leaf, tiles[tile] as Span);
      return treeRun(this.#program, combination, totals, partOf, copies);
    });
  }

  #gather(cut: readonly Span[], what: string, group: string): CollectiveStage {
    const buffer = this.#options.bufferOf(0);
    this.#program.shared.add(buffer);
    return gatherParts(`${cut[0]?.group.key} of ${what} to all`, group, cut, buffer);
  }

  /** Reserves the next bytes of a buffer that collectives work on. */
  #room(buffer: string, byteLength: number): BufferPlace {
    const byteOffset = this.#taken.get(buffer) ?? 0;
    const end = byteOffset + byteLength;
    this.#taken.set(buffer, end);
    this.#program.shared.add(this.#program.growing(buffer, end));
    return { buffer, byteOffset };
  }
}

/** A tile of a part that begins at `place`. */
function refWithin({ buffer, byteOffset }: BufferPlace, part: Span, tile: Span): TensorRef {
  const ref = spanRef(tile, buffer);
  return { ...ref, byteOffset: byteOffset + ref.byteOffset - extentOf(part).byteOffset };
}
