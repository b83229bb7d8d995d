/**
 * Whole parameters, for a run that one rank makes alone where ranks divide the model: they are brought
 * together out of the memory of all of them, unit by unit.
 */
import type { Graph, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { buildNamed } from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import { PARAMETERS, unitBuffer } from "./buffers.ts";
import { bringTogether } from "./dim-parts.ts";
import type { Divided, DividedTensor } from "./divided.ts";
import { UNIT_BUFFERS } from "./gathered.ts";
import { ALIGNMENT, entryRef, type Layout } from "./layout.ts";
import type { ProgramBuilder, Run, Stage, TensorRef } from "./program.ts";
import { runInPieces } from "./run-in-pieces.ts";

export interface WholeOptions {
  readonly divided: Divided;
  /** Of the parts of this rank; those of others lie alike. */
  readonly parameters: Layout;
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
  const { divided, parameters } = options;
  return runInPieces(program, name, graph, {
    inputs,
    outputs,
    isParameter: (own) => parameters.entries.has(own),
    gather: (unit, taken, turn) => {
      const buffer = unitBuffer(turn % UNIT_BUFFERS);
      const places = new Map<string, TensorRef>();
      let bytes = 0;
      const runs = taken.flatMap((own): Run[] => {
        const tensor = divided.tensors.get(own);
        if (tensor === undefined) return [];
        const place = { buffer, byteOffset: bytes, type: tensor.type };
        bytes += Math.ceil(byteLength(tensor.type) / ALIGNMENT) * ALIGNMENT;
        places.set(own, place);
        return [wholeRun(program, own, tensor, place, options)];
      });
      program.growing(buffer, bytes);
      const find = (own: string) => places.get(own) ?? entryRef(parameters, PARAMETERS, own);
      return { name: unit, buffer, find, work: [{ name: unit, runs, mode: "parallel" }] };
    },
  });
}

function wholeRun(
  program: ProgramBuilder,
  name: string,
  tensor: DividedTensor,
  whole: TensorRef,
  { divided, parameters, nameOf }: WholeOptions,
): Run {
  const part = entryRef(parameters, PARAMETERS, name) as TensorRef;
  const graph = wholeGraph(program, tensor, part);
  const parts = program.graphs.get(graph)?.graph.inputs ?? [];
  const refs = parts.map((input) => {
    const wanted = input.split(".").slice(1).map(Number);
    const place = divided.ranks.findIndex((_, at) =>
      tensor.cuts.every(({ partOf }, cut) => partOf[at] === wanted[cut]),
    );
    const rank = divided.ranks[place]?.[divided.peer] as number;
    const ref = place === divided.place ? part : { ...part, rank: nameOf(rank) };
    return [input, ref] as const;
  });
  return { graph, inputs: Object.fromEntries(refs), outputs: { whole } };
}

/** Its inputs are named by the parts of each cut that they are: `part.0.1`. */
function wholeGraph(program: ProgramBuilder, { cuts }: DividedTensor, { type }: TensorRef): string {
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
