/**
 * Whole parameters, for a run that one rank makes alone where ranks divide the model: they are brought
 * together out of the memory of all of them, unit by unit. Where parts are sharded over nodes, ranks
 * make such runs at the same time: each gathers its parts, and reads those of its neighbours.
 */
import type { Graph, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { buildNamed } from "../plan/index.ts";
import { byteLength, bytesPerElement, type TensorType } from "../tensor/index.ts";
import { PARAMETERS, PARTS, unitBuffer } from "./buffers.ts";
import { bringTogether } from "./dim-parts.ts";
import type { Divided, DividedTensor } from "./divided.ts";
import { type Gathered, UNIT_BUFFERS } from "./gathered.ts";
import { ALIGNMENT, entryRef, type Layout, type LayoutEntry } from "./layout.ts";
import { type Ownership, ownedSpans } from "./ownership.ts";
import {
  allGather,
  barrier,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { roomBlocks } from "./room.ts";
import { runInPieces } from "./run-in-pieces.ts";
import { copyRun } from "./runs.ts";
import { type Span, spanOf, spanRef } from "./spans.ts";

export interface WholeOptions {
  readonly divided: Divided;
  /** Of the parts of this rank; those of others lie alike. */
  readonly parameters: Layout;
  /** Who has which parameters; undefined if each rank has all of its part of the model. */
  readonly sharded: { readonly ownership: Ownership; readonly gathered: Gathered } | undefined;
  /** The name of the group of ranks that have other parts of the same samples. */
  readonly group: string;
  /** What the program calls a rank of the run. */
  readonly nameOf: (rank: number) => number;
}

/** The parts of some parameters, as this rank finds them. */
interface Parts {
  /** The part that a place in the model has. */
  find(name: string, place: number): TensorRef;
  /** Brings parts here; asked for when all have been found. */
  work(): readonly (RunStage | CollectiveStage)[];
  /** What has to happen before the next parts are brought here. */
  readonly after: readonly CollectiveStage[];
}

/** Places one after the other in a buffer. */
class Room {
  readonly buffer: string;
  byteLength = 0;

  constructor(buffer: string) {
    this.buffer = buffer;
  }

  place(type: TensorType): TensorRef {
    const byteOffset = this.byteLength;
    this.byteLength += Math.ceil(byteLength(type) / ALIGNMENT) * ALIGNMENT;
    return { buffer: this.buffer, byteOffset, type };
  }
}

/** A run of a graph of whole parameters. */
export function runWhole(
  program: ProgramBuilder,
  name: string,
  graph: Graph,
  { inputs, outputs }: Pick<Run, "inputs" | "outputs">,
  options: WholeOptions,
): Stage {
  const { divided, parameters, sharded } = options;
  return runInPieces(program, name, graph, {
    inputs,
    outputs,
    isParameter: (own) => parameters.entries.has(own),
    gather: (unit, taken, turn) => {
      const room = new Room(unitBuffer(turn % UNIT_BUFFERS));
      const own =
        sharded === undefined
          ? heldParts(options)
          : sharded.ownership.isInPlace
            ? copiedParts(program, unit, room, options, sharded.ownership)
            : gatheredParts(unit, room, options, sharded.gathered.unit(unit, taken, turn));
      const parts = divided.isInPlace ? own : sentParts(program, unit, taken, options, own);
      const places = new Map<string, TensorRef>();
      const runs = taken.flatMap((own): Run[] => {
        const tensor = divided.tensors.get(own);
        const place =
          tensor === undefined ? parts.find(own, divided.place) : room.place(tensor.type);
        places.set(own, place);
        if (tensor === undefined) return [];
        const { type } = parameters.entries.get(own) as LayoutEntry;
        return [wholeRun(program, { name: own, tensor, part: type }, place, divided, parts)];
      });
      program.growing(room.buffer, room.byteLength);
      const whole: RunStage = { name: unit, runs, mode: "parallel" };
      const work = [...parts.work(), whole, ...parts.after];
      return { name: unit, buffer: room.buffer, find: (own) => places.get(own), work };
    },
  });
}

/** Each rank has all of its part of the model, which others read in place. */
function heldParts({ divided, parameters, nameOf }: WholeOptions): Parts {
  return {
    find: (name, place) => {
      const part = entryRef(parameters, PARAMETERS, name) as TensorRef;
      return atRank(part, divided, place, nameOf);
    },
    work: () => [],
    after: [],
  };
}

/** Ranks of this node have pieces of each part, which are read in place, or copied if there are several. */
function copiedParts(
  program: ProgramBuilder,
  name: string,
  room: Room,
  { divided, parameters, nameOf }: WholeOptions,
  ownership: Ownership,
): Parts {
  const runs: Run[] = [];
  const find = (parameter: string, place: number): TensorRef => {
    const part = entryRef(parameters, PARAMETERS, parameter) as TensorRef;
    const whole = spanOf(parameters, parameter) as Span;
    const owned = ownedSpans(ownership, whole);
    const at = (owner: number, ref: TensorRef): TensorRef =>
      atRank(ref, divided, place, nameOf, ownership.ranks[owner]);
    const [first] = owned;
    if (owned.length === 1 && first !== undefined) return at(first.owner, part);
    const into = room.place(part.type);
    for (const { owner, span } of owned) {
      for (const block of roomBlocks(span)) {
        const from = spanRef(block, PARAMETERS);
        const before = (block.start - whole.start) * bytesPerElement(part.type.dtype);
        const to = { ...into, byteOffset: into.byteOffset + before, type: from.type };
        runs.push(copyRun(program, at(owner, from), to));
      }
    }
    return into;
  };
  return { find, work: () => [{ name, runs, mode: "parallel" }], after: [] };
}

/** Each rank has gathered its parts of a unit, and reads those of its neighbours there. */
function gatheredParts(
  name: string,
  room: Room,
  { divided, group, nameOf }: WholeOptions,
  unit: ReturnType<Gathered["unit"]>,
): Parts {
  room.byteLength = unit.room.byteLength;
  return {
    find: (parameter, place) =>
      atRank(unit.room.ref(parameter, room.buffer) as TensorRef, divided, place, nameOf),
    work: () => [...unit.work, barrier(`${name} are there`, group)],
    after: [barrier(`${name} are read`, group)],
  };
}

/** Each rank sends its parts to all that have others, out of the place where it finds them. */
function sentParts(
  program: ProgramBuilder,
  name: string,
  taken: readonly string[],
  { divided, parameters, group }: WholeOptions,
  own: Parts,
): Parts {
  const each = new Room(PARTS);
  const cut = taken.filter((parameter) => divided.tensors.has(parameter));
  const places = new Map(
    cut.map((parameter) => {
      const { type } = parameters.entries.get(parameter) as LayoutEntry;
      return [parameter, each.place(type)] as const;
    }),
  );
  const ranks = divided.ranks.length;
  const bytes = each.byteLength;
  program.shared.add(program.growing(PARTS, ranks * bytes));
  const ofPlace = (parameter: string, place: number): TensorRef => {
    const ref = places.get(parameter) as TensorRef;
    return { ...ref, byteOffset: ref.byteOffset + place * bytes };
  };
  const runs = cut.map((parameter) => {
    const from = own.find(parameter, divided.place);
    return copyRun(program, from, ofPlace(parameter, divided.place));
  });
  const counts = new Array<number>(ranks).fill(bytes);
  const data = { buffer: PARTS, byteOffset: 0 };
  const gather = allGather(`${name}, of all parts`, group, { counts, dtype: "uint8" }, data);
  return {
    // What is not cut, each rank has.
    find: (parameter, place) =>
      places.has(parameter) ? ofPlace(parameter, place) : own.find(parameter, divided.place),
    work: () => [
      ...own.work().filter((stage) => !("runs" in stage) || stage.runs.length > 0),
      { name: `${name}, own parts`, runs, mode: "parallel" },
      ...(bytes > 0 ? [gather] : []),
    ],
    after: own.after,
  };
}

/** A place in the memory of a rank of another part of the model, or of other samples. */
function atRank(
  ref: TensorRef,
  { ranks, place: own, peer }: Divided,
  place: number,
  nameOf: WholeOptions["nameOf"],
  of = peer,
): TensorRef {
  if (place === own && of === peer) return ref;
  return { ...ref, rank: nameOf(ranks[place]?.[of] as number) };
}

function wholeRun(
  program: ProgramBuilder,
  of: { readonly name: string; readonly tensor: DividedTensor; readonly part: TensorType },
  whole: TensorRef,
  divided: Divided,
  parts: Parts,
): Run {
  const { name, tensor, part } = of;
  const graph = wholeGraph(program, tensor, part);
  const given = program.graphs.get(graph)?.graph.inputs ?? [];
  const refs = given.map((input) => {
    const wanted = input.split(".").slice(1).map(Number);
    const place = divided.ranks.findIndex((_, at) =>
      tensor.cuts.every(({ partOf }, cut) => partOf[at] === wanted[cut]),
    );
    return [input, parts.find(name, place)] as const;
  });
  return { graph, inputs: Object.fromEntries(refs), outputs: { whole } };
}

/** Its inputs are named by the parts of each cut that they are: `part.0.1`. */
function wholeGraph(program: ProgramBuilder, { cuts }: DividedTensor, type: TensorType): string {
  const shape = cuts.map(({ dim, sections, ranks }) => [dim, sections, ranks]);
  const name = `whole.${type.dtype}.${type.shape.join("x")}.${JSON.stringify(shape)}`;
  return program.graph(name, 1, () => {
    const builder = newBuilder("whole");
    const assemble = (of: readonly number[]): Value => {
      const cut = cuts[of.length];
      if (cut === undefined) return builder.input(["part", ...of].join("."), type);
      const parts = Array.from({ length: cut.ranks }, (_, at) => assemble([...of, at]));
      const { dim, sections } = cut;
      return bringTogether(parts, { shard: dim, ...(sections && { sections }) });
    };
    return buildNamed(builder, new Map([["whole", assemble([])]]));
  });
}
