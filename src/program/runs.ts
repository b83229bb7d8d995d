/** Runs that programs are made of: sums along a tree, scaled copies, copies, and places of rows. */
import { add, mul } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { buildNamed } from "../plan/index.ts";
import { bytesPerElement, elementCount, type TensorType } from "../tensor/index.ts";
import type { ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";
import type { Combination } from "./shares.ts";

/** Work below this stays on the calling thread: handing it to others would cost as much. */
const SMALL_NANOSECONDS = 200_000;

/**
 * The mode of a stage that sweeps over so many elements.
 * @param cost nanoseconds for each element, measured (see docs/lab.md)
 */
export function sweepMode(elements: number, cost: number): RunStage["mode"] {
  return elements * cost < SMALL_NANOSECONDS ? "small" : "sweep";
}

/** A part of a tensor along its leading dim. */
export function rowsRef(buffer: string, type: TensorType, index: number): TensorRef {
  const bytes = elementCount(type.shape) * bytesPerElement(type.dtype);
  return { buffer, byteOffset: index * bytes, type };
}

/** The leaves of a combination, from left to right. */
export function leavesOf(combination: Combination): number[] {
  return typeof combination === "number" ? [combination] : combination.flatMap(leavesOf);
}

/** The same shape with leaves counted from 0: combinations of one shape share a graph. */
function renumber(combination: Combination, used: readonly number[]): Combination {
  if (typeof combination === "number") return used.indexOf(combination);
  return [renumber(combination[0], used), renumber(combination[1], used)];
}

/**
 * Sums parts along a tree, tile after tile, so that what is between two additions stays in the
 * cache.
 * @param totals the places of the sums, one for each tile; all have one type
 * @param partOf the place of a leaf of the combination in a tile
 * @param copies more places that the sums are copied to out of the cache: lists like `totals`
 */
export function treeRun(
  program: ProgramBuilder,
  combination: Combination,
  totals: readonly TensorRef[],
  partOf: (leaf: number, tile: number) => TensorRef,
  copies: readonly (readonly TensorRef[])[] = [],
): Run {
  const leaves = leavesOf(combination);
  const shape = renumber(combination, leaves);
  const { type } = totals[0] as TensorRef;
  const places = 1 + copies.length;
  const size = `${type.dtype}.${type.shape.join("x")}.${totals.length}.${places}`;
  // The name has the shape of the tree, which may change in a run with the ranges of ranks.
  const graph = program.graph(`tree.${JSON.stringify(shape)}.${size}`, 1, () => {
    const builder = newBuilder("tree");
    const sums = totals.flatMap((_, tile): [string, Value][] => {
      const values = leaves.map((__, part) => builder.input(`part.${part}.${tile}`, type));
      const resolve = (part: Combination): Value =>
        typeof part === "number"
          ? (values[part] as Value)
          : add(resolve(part[0]), resolve(part[1]));
      const sum = resolve(shape);
      const copied = copies.map((__, copy): [string, Value] => [
        `copy.${copy}.${tile}`,
        builder.one("Identity", [sum]),
      ]);
      return [[`total.${tile}`, sum], ...copied];
    });
    return buildNamed(builder, new Map(sums));
  });
  const inputs = totals.flatMap((_, tile) =>
    leaves.map((leaf, part) => [`part.${part}.${tile}`, partOf(leaf, tile)] as const),
  );
  const outputs = totals.flatMap((total, tile) => [
    [`total.${tile}`, total] as const,
    ...copies.map((to, copy) => [`copy.${copy}.${tile}`, to[tile] as TensorRef] as const),
  ]);
  return { graph, inputs: Object.fromEntries(inputs), outputs: Object.fromEntries(outputs) };
}

/** A stage of independent sums along a tree. */
export function treeStage(name: string, runs: readonly Run[]): RunStage {
  const read = runs.flatMap(({ inputs }) => Object.values(inputs));
  const elements = read.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  return { name, runs, mode: sweepMode(elements, 0.25) };
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

/** A copy of a tensor to a place of the same type. */
export function copyRun(program: ProgramBuilder, from: TensorRef, to: TensorRef): Run {
  const { dtype, shape } = from.type;
  const graph = program.graph(`copy.${dtype}.${shape.join("x")}`, 1, () => {
    const builder = newBuilder("copy");
    const copied = builder.one("Identity", [builder.input("from", from.type)]);
    return buildNamed(builder, new Map([["to", copied]]));
  });
  return { graph, inputs: { from }, outputs: { to } };
}
