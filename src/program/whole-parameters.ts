/**
 * Whole parameters, for a run that one rank makes alone where ranks divide the model: they are brought
 * together out of the memory of all of them, unit by unit.
 */
import type { Graph, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { buildNamed } from "../plan/index.ts";
import { byteLength, bytesPerElement, type TensorType } from "../tensor/index.ts";
import { PARAMETERS, unitBuffer } from "./buffers.ts";
import { bringTogether } from "./dim-parts.ts";
import type { Divided, DividedTensor } from "./divided.ts";
import { type Gathered, gatheredRef, UNIT_BUFFERS } from "./gathered.ts";
import { ALIGNMENT, entryRef, type Layout } from "./layout.ts";
import { ownedSpans } from "./ownership.ts";
import type { ProgramBuilder, Run, RunStage, Stage, TensorRef } from "./program.ts";
import { runInPieces } from "./run-in-pieces.ts";
import { copyRun } from "./runs.ts";
import { type Span, spanOf, spanRef } from "./spans.ts";

export interface WholeOptions {
  readonly divided: Divided;
  /** Of the parts of this rank; those of others lie alike. */
  readonly parameters: Layout;
  /** How parameters are gathered of ranks that have the same part. Default: each has all of it. */
  readonly gathered?: Gathered | undefined;
  /** What the program calls a rank of the run. */
  readonly nameOf: (rank: number) => number;
}

/** A run of a graph of whole parameters. */
export function runWhole(
  program: ProgramBuilder,
  name: string,
  graph: Graph,
  { inputs, outputs }: Pick<Run, "inputs" | "outputs">,
  options: WholeOptions,
): Stage {
  const { divided, parameters, gathered } = options;
  return runInPieces(program, name, graph, {
    inputs,
    outputs,
    isParameter: (own) => parameters.entries.has(own),
    gather: (unit, taken, turn) => {
      const others = taken.filter((own) => !divided.tensors.has(own));
      const together = others.length === 0 ? undefined : gathered?.unit(unit, others, turn);
      const room = new UnitRoom(unitBuffer(turn % UNIT_BUFFERS), together?.room.byteLength ?? 0);
      const places = new Map<string, TensorRef>();
      const copies: Run[] = [];
      const runs = taken.flatMap((own): Run[] => {
        const tensor = divided.tensors.get(own);
        if (tensor === undefined) return [];
        const whole = room.take(tensor.type);
        places.set(own, whole);
        const parts = new Parts(program, own, room, options);
        const run = wholeRun(program, tensor, whole, parts);
        copies.push(...parts.copies);
        return [run];
      });
      program.growing(room.buffer, room.bytes);
      const find = (own: string) => {
        const other = together && gatheredRef(together, own);
        return places.get(own) ?? other ?? entryRef(parameters, PARAMETERS, own);
      };
      const copied: RunStage = { name: `parts of ${unit}`, runs: copies, mode: "parallel" };
      const work = [
        ...(together?.work ?? []),
        ...(copies.length === 0 ? [] : [copied]),
        { name: unit, runs, mode: "parallel" as const },
      ];
      return { name: unit, buffer: room.buffer, find, work };
    },
  });
}

/** What is brought together for a piece, one thing behind the other. */
class UnitRoom {
  readonly buffer: string;
  bytes: number;

  constructor(buffer: string, bytes: number) {
    this.buffer = buffer;
    this.bytes = aligned(bytes);
  }

  take(type: TensorType): TensorRef {
    const place = { buffer: this.buffer, byteOffset: this.bytes, type };
    this.bytes += aligned(byteLength(type));
    return place;
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** The parts of a parameter, each in the memory of a rank that has it. */
class Parts {
  readonly type: TensorType;
  /** Brings together what several ranks have of a part. */
  readonly copies: Run[] = [];
  readonly #program: ProgramBuilder;
  readonly #part: TensorRef;
  readonly #span: Span;
  readonly #room: UnitRoom;
  readonly #options: WholeOptions;

  constructor(program: ProgramBuilder, name: string, room: UnitRoom, options: WholeOptions) {
    this.#part = entryRef(options.parameters, PARAMETERS, name) as TensorRef;
    this.#span = spanOf(options.parameters, name) as Span;
    this.type = this.#part.type;
    this.#program = program;
    this.#room = room;
    this.#options = options;
  }

  /** @param wanted which part of each cut */
  ref({ cuts }: DividedTensor, wanted: readonly number[]): TensorRef {
    const { divided, gathered } = this.#options;
    const place = divided.ranks.findIndex((_, at) =>
      cuts.every(({ partOf }, cut) => partOf[at] === wanted[cut]),
    );
    if (gathered === undefined) return this.#at(place, divided.peer, this.#part);
    const { ownership } = gathered;
    const owned = ownedSpans(ownership, this.#span);
    const peerOf = (owner: number) => ownership.ranks[owner] as number;
    const [first, ...rest] = owned;
    if (first !== undefined && rest.length === 0) {
      return this.#at(place, peerOf(first.owner), this.#part);
    }
    const whole = this.#room.take(this.type);
    const width = bytesPerElement(this.type.dtype);
    for (const { owner, span } of owned) {
      const from = this.#at(place, peerOf(owner), spanRef(span, PARAMETERS));
      const byteOffset = whole.byteOffset + (span.start - this.#span.start) * width;
      this.copies.push(copyRun(this.#program, from, { ...whole, byteOffset, type: from.type }));
    }
    return whole;
  }

  /** @param peer the number of a rank among those that have the place */
  #at(place: number, peer: number, ref: TensorRef): TensorRef {
    const { divided, nameOf } = this.#options;
    if (place === divided.place && peer === divided.peer) return ref;
    return { ...ref, rank: nameOf(divided.ranks[place]?.[peer] as number) };
  }
}

function wholeRun(
  program: ProgramBuilder,
  tensor: DividedTensor,
  whole: TensorRef,
  parts: Parts,
): Run {
  const graph = wholeGraph(program, tensor, parts.type);
  const inputs = program.graphs.get(graph)?.graph.inputs ?? [];
  const refs = inputs.map((input) => {
    const wanted = input.split(".").slice(1).map(Number);
    return [input, parts.ref(tensor, wanted)] as const;
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
