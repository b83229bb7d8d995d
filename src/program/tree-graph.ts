/** A part of the tree over micro-batches as a graph: contributions in, their sum out. */
import { add } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { buildNamed } from "../plan/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { ProgramBuilder } from "./program.ts";
import type { Combination } from "./shares.ts";

export function leavesOf(combination: Combination): number[] {
  return typeof combination === "number" ? [combination] : combination.flatMap(leavesOf);
}

/** The same shape with leaves counted from 0: combinations of one shape share a graph. */
export function renumber(combination: Combination, used: readonly number[]): Combination {
  if (typeof combination === "number") return used.indexOf(combination);
  return [renumber(combination[0], used), renumber(combination[1], used)];
}

interface TreeSize {
  /** How many parts are summed. */
  readonly count: number;
  /** Of a tile. */
  readonly type: TensorType;
  readonly tiles: number;
}

/** Tile after tile: what is between two additions stays in the cache. */
export function treeGraph(
  program: ProgramBuilder,
  combination: Combination,
  { count, type, tiles }: TreeSize,
): string {
  const name = `tree.${JSON.stringify(combination)}.${type.dtype}.${type.shape.join("x")}.${tiles}`;
  // Ranges may change in a run, and the shape of the tree with them.
  return program.graph(name, 1, () => {
    const builder = newBuilder("tree");
    const totals = Array.from({ length: tiles }, (_, tile): [string, Value] => {
      const values = Array.from({ length: count }, (__, part) =>
        builder.input(`part.${part}.${tile}`, type),
      );
      const resolve = (part: Combination): Value =>
        typeof part === "number"
          ? (values[part] as Value)
          : add(resolve(part[0]), resolve(part[1]));
      return [`total.${tile}`, resolve(combination)];
    });
    return buildNamed(builder, new Map(totals));
  });
}

/** One after the other. */
export function chain(count: number): Combination {
  return Array.from({ length: count }, (_, index) => index).reduce<Combination>(
    (sum, index) => (index === 0 ? 0 : [sum, index]),
    0,
  );
}
