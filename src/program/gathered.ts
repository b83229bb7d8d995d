/**
 * Parameters that no rank holds whole. They are gathered unit by unit, just before a piece of
 * computation needs them, into one of two buffers that take turns: copied out of the memory of the
 * ranks that own them, or sent by these ranks if they are of other nodes. A tensor that one rank of
 * this node owns alone is not copied: it is read in place.
 */
import type { Graph } from "../graph/index.ts";
import { PARAMETERS, unitBuffer } from "./buffers.ts";
import { entryRef, type Layout } from "./layout.ts";
import { type Ownership, ofOwner, ownedSpans } from "./ownership.ts";
import {
  allGather,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { Room } from "./room.ts";
import { runInPieces } from "./run-in-pieces.ts";
import { copyRun } from "./runs.ts";
import { spanOf, spanRef } from "./spans.ts";

/** The number of buffers: one is filled while the one before it is used. */
export const UNIT_BUFFERS = 2;

/** The parameters that are gathered for a piece. */
export interface Unit {
  readonly name: string;
  /** Parameters that are read in place. */
  readonly inPlace: ReadonlyMap<string, TensorRef>;
  /** Where the others are brought together. */
  readonly room: Room;
  readonly buffer: string;
  /**
   * What fills the buffer. In place, parts are copied from all owners; else each owner copies its
   * own parts and sends them.
   */
  readonly work: readonly (RunStage | CollectiveStage)[];
}

export class Gathered {
  readonly #program: ProgramBuilder;
  readonly #parameters: Layout;
  readonly #ownership: Ownership;

  constructor(program: ProgramBuilder, parameters: Layout, ownership: Ownership) {
    this.#program = program;
    this.#parameters = parameters;
    this.#ownership = ownership;
  }

  get ownership(): Ownership {
    return this.#ownership;
  }

  /** @param turn counts the units of a pass */
  unit(name: string, parameters: readonly string[], turn: number): Unit {
    const { isInPlace, place, group } = this.#ownership;
    const inPlace = new Map<string, TensorRef>();
    for (const own of parameters) {
      const ref = isInPlace ? this.#atOwner(own) : undefined;
      if (ref !== undefined) inPlace.set(own, ref);
    }
    const others = parameters.filter((own) => !inPlace.has(own));
    const room = new Room(this.#parameters, others);
    const buffer = this.#program.growing(unitBuffer(turn % UNIT_BUFFERS), room.byteLength);
    this.#program.shared.add(isInPlace ? PARAMETERS : buffer);
    const blocks = room.blocks(this.#ownership);
    const copied = blocks.filter(({ owner }) => isInPlace || owner === place);
    const runs = copied.map(({ owner, span }) => {
      const from = ofOwner(this.#ownership, owner, spanRef(span, PARAMETERS));
      return copyRun(this.#program, from, room.placeOf(span, buffer));
    });
    const sent = isInPlace ? [] : room.runs(this.#ownership);
    const gathers = sent.map(({ counts, ...span }) => {
      const { byteOffset } = room.placeOf(span, buffer);
      const parts = { counts, dtype: span.group.dtype };
      return allGather(name, group, parts, { buffer, byteOffset });
    });
    return { name, inPlace, room, buffer, work: [{ name, runs, mode: "parallel" }, ...gathers] };
  }

  /** A parameter in the memory of the rank that owns all of it; undefined if several own parts. */
  #atOwner(name: string): TensorRef | undefined {
    const ref = entryRef(this.#parameters, PARAMETERS, name);
    const span = spanOf(this.#parameters, name);
    const [first, ...rest] = span === undefined ? [] : ownedSpans(this.#ownership, span);
    if (ref === undefined || first === undefined || rest.length > 0) return undefined;
    return ofOwner(this.#ownership, first.owner, ref);
  }

  /** A run of a graph that takes parameters, cut into pieces for which units are gathered. */
  inPieces(name: string, graph: Graph, of: Pick<Run, "inputs" | "outputs">): Stage {
    return runInPieces(this.#program, name, graph, {
      ...of,
      isParameter: (own) => this.#parameters.entries.has(own),
      gather: (unit, taken, turn) => {
        const gathered = this.unit(unit, taken, turn);
        return { ...gathered, find: (own) => gatheredRef(gathered, own) };
      },
    });
  }
}

/** Where a piece finds a parameter of its unit. */
export function gatheredRef({ inPlace, room, buffer }: Unit, name: string): TensorRef | undefined {
  return inPlace.get(name) ?? room.ref(name, buffer);
}
