/**
 * Lowers the sum of all ranks' contributions to stages, for some pieces of the flat gradient.
 * Within a node, every rank reads its part of its neighbours' buffers in place and sums it (a
 * reduce-scatter). Between nodes, the ranks that have the same place in their nodes exchange parts
 * of these sums by all-to-all, and add them up. Then all-gathers bring the sums to all ranks that
 * need them. All additions follow the one tree over micro-batches, so any placement of ranks on
 * nodes gives the same bits.
 */
import { assert } from "../errors.ts";
import { COPIES, NODE_SUMS } from "./buffers.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import type { RankGroups } from "./levels.ts";
import { gatherParts, type Ownership } from "./ownership.ts";
import { bytesOf, cutPiece, elementsOf, offsetOf, type Piece } from "./pieces.ts";
import {
  type BufferPlace,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type TensorRef,
} from "./program.ts";
import type { Combination, Levels } from "./shares.ts";
import { type Block, blockRef, blocksBetween, sweepMode } from "./sweep.ts";
import { leavesOf, renumber, treeGraph } from "./tree-graph.ts";

export interface ReduceOptions {
  readonly rank: number;
  /** Names of the groups of ranks. */
  readonly names: RankGroups["names"];
  readonly levels: Levels;
  /** The buffer of a rank's contribution, laid out by `layout`. That of slot 0 gets the sum. */
  readonly bufferOf: (slot: number) => string;
  /**
   * Groups whose sums are not gathered within a node, because each rank updates its part alone.
   * Default: none.
   */
  readonly keeps?: (group: LayoutGroup) => boolean;
}

/** The place where a block of a contribution is read; contributions are numbered as in `Shares`. */
type PlaceOf = (contribution: number, block: Block) => TensorRef;

/** The runs and collectives that sum one piece. */
interface PieceStages {
  /** Sum the contributions of this node. */
  readonly local: readonly Run[];
  readonly exchanges: readonly CollectiveStage[];
  readonly totals: readonly Run[];
  readonly gathers: readonly CollectiveStage[];
}

/**
 * Makes the stages of pieces, call by call. Intermediate sums of all calls share their places: the
 * stages of one call end before those of the next begin.
 */
export class Reducer {
  readonly #program: ProgramBuilder;
  readonly #layout: Layout;
  readonly #options: ReduceOptions;
  /**
   * The number of this rank's node, the ranks of that node, and the place of this rank among them.
   */
  readonly #node: number;
  readonly #neighbours: readonly number[];
  readonly #place: number;
  readonly #bytes = new Map<string, number>();

  constructor(program: ProgramBuilder, layout: Layout, options: ReduceOptions) {
    this.#program = program;
    this.#layout = layout;
    this.#options = options;
    const { members } = options.levels;
    this.#node = members.findIndex((own) => own.includes(options.rank));
    this.#neighbours = members[this.#node] ?? [];
    this.#place = this.#neighbours.indexOf(options.rank);
  }

  /** @param what what names of stages call the pieces */
  stages(pieces: readonly Piece[], what: string): (RunStage | CollectiveStage)[] {
    this.#bytes.clear();
    const all = pieces.map((piece) => this.#piece(piece, what));
    const local = all.flatMap((piece) => piece.local);
    const barrier: CollectiveStage = {
      name: `neighbours have ${what}`,
      mode: "collective",
      group: this.#inner,
      call: { kind: "barrier" },
    };
    const parts = this.#neighbours.length * this.#options.levels.members.length;
    return [
      ...(this.#neighbours.length > 1 ? [barrier] : []),
      ...(local.length > 0
        ? [this.#sumStage(`sums of this node, ${what}`, local, pieces, this.#neighbours.length)]
        : []),
      ...all.flatMap(({ exchanges }) => exchanges),
      this.#sumStage(
        `sum of ${what}`,
        all.flatMap(({ totals }) => totals),
        pieces,
        parts,
      ),
      ...all.flatMap(({ gathers }) => gathers),
    ];
  }

  /**
   * Which parts of these pieces the ranks of this node keep; undefined where all parts are
   * gathered.
   */
  ownership(pieces: readonly Piece[]): Ownership | undefined {
    const kept = pieces.filter((piece) => this.#keeps(piece));
    if (kept.length === 0 || this.#neighbours.length === 1) return undefined;
    const cuts = kept.map((piece) => cutPiece(piece, this.#neighbours.length));
    return {
      group: this.#inner,
      isInPlace: true,
      place: this.#place,
      ranks: this.#neighbours,
      cuts,
    };
  }

  #keeps({ group }: Piece): boolean {
    return this.#options.keeps?.(group) ?? false;
  }

  /** The name of the group of ranks that sum in place. */
  get #inner(): string {
    return this.#isNested ? this.#options.names.inner : this.#options.names.all;
  }

  /** The name of the group of ranks that exchange parts by messages. */
  get #outer(): string {
    return this.#isNested ? this.#options.names.outer : this.#options.names.all;
  }

  /** Whether there are several nodes of several ranks, so that sums have two levels. */
  get #isNested(): boolean {
    return this.#neighbours.length > 1 && this.#options.levels.members.length > 1;
  }

  #piece(piece: Piece, what: string): PieceStages {
    const { members, ranks } = this.#options.levels;
    const gathers: CollectiveStage[] = [];
    const cuts = cutPiece(piece, this.#neighbours.length);
    const part = cuts[this.#place] as Piece;
    if (cuts.length > 1 && !this.#keeps(piece)) {
      gathers.push(this.#gather(cuts, what, this.#inner));
    }
    if (members.length === 1) {
      const totals = this.#totals(part, ranks.combination, this.#inPlace(part));
      return { local: [], exchanges: [], totals, gathers };
    }
    const subparts = cutPiece(part, members.length);
    const own = subparts[this.#node] as Piece;
    gathers.unshift(this.#gather(subparts, what, this.#outer));
    const { runs: local, sources } = this.#isNested
      ? this.#sumNeighbours(part)
      : { runs: [], sources: this.#contributions(part) };
    const { stages: exchanges, placeOf } = this.#exchange(subparts, sources, what);
    const totals = this.#totals(own, this.#options.levels.nodes.combination, placeOf);
    return { local, exchanges, totals, gathers };
  }

  /** The places of contributions in the memory of this rank and of its neighbours. */
  #inPlace({ group }: Piece): PlaceOf {
    const { rank, levels, bufferOf } = this.#options;
    return (contribution, block) => {
      const from = levels.ranks.contributions[contribution];
      const place = blockRef(bufferOf(from?.slot ?? 0), this.#layout, group, block);
      return from?.rank === rank ? place : { ...place, rank: from?.rank ?? 0 };
    };
  }

  /** Where this rank's own contributions to a part begin, by slot. */
  #contributions(part: Piece): BufferPlace[] {
    const { rank, levels, bufferOf } = this.#options;
    const own = levels.ranks.contributions.filter((from) => from.rank === rank);
    return own.map(({ slot }) => ({
      buffer: bufferOf(slot),
      byteOffset: offsetOf(this.#layout, part),
    }));
  }

  /** Sums this node's contributions to a part, each in a place of its own. */
  #sumNeighbours(part: Piece): { runs: Run[]; sources: BufferPlace[] } {
    const { levels } = this.#options;
    const runs: Run[] = [];
    const sources: BufferPlace[] = [];
    for (const [index, { rank: node }] of levels.nodes.contributions.entries()) {
      if (node !== this.#node) continue;
      const target = this.#room(NODE_SUMS, bytesOf(this.#layout, part));
      sources.push(target);
      const to = this.#compact(target, part);
      runs.push(...this.#sums(part, levels.within[index] as Combination, this.#inPlace(part), to));
    }
    return { runs, sources };
  }

  /** Exchanges what nodes contribute to each other's subparts, slot by slot. */
  #exchange(
    subparts: readonly Piece[],
    sources: readonly BufferPlace[],
    what: string,
  ): { stages: CollectiveStage[]; placeOf: PlaceOf } {
    const { contributions, slots } = this.#options.levels.nodes;
    const own = subparts[this.#node] as Piece;
    const { group } = own;
    const counts = subparts.map((subpart) => elementsOf(this.#layout, subpart));
    const bytes = bytesOf(this.#layout, own);
    const places = new Map<string, BufferPlace>();
    const stages: CollectiveStage[] = [];
    for (let slot = 0; slot < slots; slot++) {
      const gives = (node: number) =>
        contributions.some((from) => from.rank === node && from.slot === slot);
      const sendCounts = counts.map((count) => (gives(this.#node) ? count : 0));
      const receiveCounts = counts.map((_, from) =>
        gives(from) ? (counts[this.#node] as number) : 0,
      );
      const givers = counts.flatMap((_, from) => (gives(from) ? [from] : []));
      const into = this.#room(COPIES, bytes * givers.length);
      for (const [at, from] of givers.entries()) {
        places.set(`${from} ${slot}`, { ...into, byteOffset: into.byteOffset + at * bytes });
      }
      const given = sources[slot] ?? sources[0];
      assert(given !== undefined, "a node has a contribution");
      stages.push({
        name: `${group.key} of ${what} to those who sum it`,
        mode: "collective",
        group: this.#outer,
        call: { kind: "allToAll", sendCounts, receiveCounts, dtype: group.dtype },
        data: given,
        into,
      });
    }
    const placeOf: PlaceOf = (contribution, block) => {
      const from = contributions[contribution];
      const place = places.get(`${from?.rank} ${from?.slot}`) as BufferPlace;
      return this.#compact(place, own)(block);
    };
    return { stages, placeOf };
  }

  #totals(part: Piece, combination: Combination, placeOf: PlaceOf): Run[] {
    const total = (block: Block) =>
      blockRef(this.#options.bufferOf(0), this.#layout, part.group, block);
    return this.#sums(part, combination, placeOf, total);
  }

  #sums(
    { start, end, group }: Piece,
    combination: Combination,
    placeOf: PlaceOf,
    target: (block: Block) => TensorRef,
  ): Run[] {
    const used = leavesOf(combination);
    return blocksBetween(start, end).map((block): Run => {
      const type = { dtype: group.dtype, shape: [this.#layout.tile] };
      const shape = renumber(combination, used);
      const graph = treeGraph(this.#program, shape, { count: used.length, type, ...block });
      const inputs: Record<string, TensorRef> = {};
      const outputs: Record<string, TensorRef> = {};
      for (let at = 0; at < block.tiles; at++) {
        const tile = { firstTile: block.firstTile + at, tiles: 1 };
        for (const [part, index] of used.entries()) {
          inputs[`part.${part}.${at}`] = placeOf(index, tile);
        }
        outputs[`total.${at}`] = target(tile);
      }
      return { graph, inputs, outputs };
    });
  }

  /** The blocks of a part that begins at `place` instead of at its place in the layout. */
  #compact(place: BufferPlace, { group, start }: Piece): (block: Block) => TensorRef {
    return (block) => {
      const ref = blockRef(place.buffer, this.#layout, group, block);
      const from = offsetOf(this.#layout, { group, start, end: start });
      return { ...ref, byteOffset: place.byteOffset + ref.byteOffset - from };
    };
  }

  #gather(cuts: readonly Piece[], what: string, group: string): CollectiveStage {
    const name = `${cuts[0]?.group.key} of ${what} to all`;
    const buffer = this.#options.bufferOf(0);
    return gatherParts(this.#program, this.#layout, cuts, { name, group, buffer });
  }

  #sumStage(name: string, runs: readonly Run[], pieces: readonly Piece[], parts: number): RunStage {
    const elements = pieces.reduce((sum, piece) => sum + elementsOf(this.#layout, piece), 0);
    const [first] = runs;
    const tiles = first === undefined ? 1 : Object.keys(first.outputs).length;
    const inputs = first === undefined ? 0 : Object.keys(first.inputs).length / tiles;
    return { name, runs, mode: sweepMode(elements, (0.25 * inputs) / parts) };
  }

  /** Reserves the next bytes of a buffer that collectives work on. */
  #room(buffer: string, byteLength: number): BufferPlace {
    const byteOffset = this.#bytes.get(buffer) ?? 0;
    const end = byteOffset + byteLength;
    this.#bytes.set(buffer, end);
    const before = this.#program.buffers.get(buffer)?.byteLength ?? 0;
    this.#program.shared.add(this.#program.buffer(buffer, Math.max(before, end)));
    return { buffer, byteOffset };
  }
}
