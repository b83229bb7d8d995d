/** Runs that programs are made of: sums of buffers, scaled copies, and the places of rows. */
import { add, mul } from "../functional/index.ts";
import { newBuilder } from "../ops/index.ts";
import { buildNamed } from "../plan/index.ts";
import { bytesPerElement, elementCount, type TensorType } from "../tensor/index.ts";
import type { Layout } from "./layout.ts";
import { elementsOf, type Piece, wholePieces } from "./pieces.ts";
import type { ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";
import type { Span } from "./spans.ts";
import { blockRef, blocksBetween, sweepMode } from "./sweep.ts";

/** A part of a tensor along its leading dim. */
export function rowsRef(buffer: string, type: TensorType, index: number): TensorRef {
  const bytes = elementCount(type.shape) * bytesPerElement(type.dtype);
  return { buffer, byteOffset: index * bytes, type };
}

/** `into += from` over these pieces, block by block. */
export function sumStage(
  program: ProgramBuilder,
  layout: Layout,
  { from, into }: { readonly from: string; readonly into: string },
  pieces: readonly Piece[] = wholePieces(layout),
): RunStage {
  const runs = pieces.flatMap(({ group, start, end }) =>
    blocksBetween(start, end).map((block): Run => {
      const total = blockRef(into, layout, group, block);
      const graph = program.graph(`sum.${group.dtype}.${block.tiles}`, 1, () => {
        const builder = newBuilder("sum");
        const sum = add(builder.input("total", total.type), builder.input("part", total.type));
        return buildNamed(builder, new Map([["total/next", sum]]));
      });
      const part = blockRef(from, layout, group, block);
      return { graph, inputs: { total, part }, outputs: { "total/next": total } };
    }),
  );
  const elements = pieces.reduce((sum, piece) => sum + elementsOf(layout, piece), 0);
  return { name: `${into} += ${from}`, runs, mode: sweepMode(elements, 0.25) };
}

/** A tensor times a number, into another place. */
export function scaledRun(
  program: ProgramBuilder,
  from: TensorRef,
  to: TensorRef,
  factor: number,
): Run {
  const { dtype, shape } = from.type;
  const graph = program.graph(`scale.${dtype}.${shape.join("x")}`, 1, () => {
    const builder = newBuilder("scale");
    const scaled = mul(builder.input("from", from.type), factor);
    return buildNamed(builder, new Map([["to", scaled]]));
  });
  return { graph, inputs: { from }, outputs: { to } };
}

/** What lies in one buffer of a layout to another of it, block by block. */
export function copyRuns(
  program: ProgramBuilder,
  layout: Layout,
  { from, to }: { readonly from: string; readonly to: string },
  pieces: readonly Piece[],
): Run[] {
  return pieces.flatMap(({ group, start, end }) =>
    blocksBetween(start, end).map((block): Run => {
      const graph = copyGraph(program, { group, start: 0, end: block.tiles * layout.tile });
      return {
        graph,
        inputs: { from: blockRef(from, layout, group, block) },
        outputs: { to: blockRef(to, layout, group, block) },
      };
    }),
  );
}

/** From `from` to `to`. */
export function copyGraph(program: ProgramBuilder, { group, start, end }: Span): string {
  const type = { dtype: group.dtype, shape: [end - start] };
  return program.graph(`copy.${type.dtype}.${end - start}`, 1, () => {
    const builder = newBuilder("copy");
    const copied = builder.one("Identity", [builder.input("from", type)]);
    return buildNamed(builder, new Map([["to", copied]]));
  });
}
