/** In which proportions a graph has use for the sections of a dim. */
import { type Graph, typeOf } from "../../graph/index.ts";
import type { DividedOver } from "../../ops/index.ts";

/** Splits of more parts are not followed. */
const MOST_PARTS = 8;

/**
 * Where one value is cut into several along one dim, or made of several (queries, keys and values),
 * each of them may be what is divided.
 */
export function proportionsIn(graph: Graph): DividedOver["proportions"] {
  const found = new Map<string, readonly number[]>([["1", [1]]]);
  const add = (whole: string, parts: readonly string[]) => {
    const { shape } = typeOf(graph, whole);
    const others = parts.map((name) => typeOf(graph, name).shape);
    const [dim, ...rest] = shape.flatMap((size, at) =>
      others.some((part) => part[at] !== size) ? [at] : [],
    );
    if (dim === undefined || rest.length > 0) return;
    const sizes = others.map((part) => part[dim] as number);
    const isWhole = sizes.reduce((sum, size) => sum + size, 0) === shape[dim];
    const common = sizes.reduce(divisor, 0);
    const proportion = sizes.map((size) => size / common);
    if (isWhole) found.set(proportion.join(), proportion);
  };
  for (const { inputs, outputs } of graph.nodes) {
    const [read, made] = [inputs, outputs].map((names) => names.filter((name) => name !== ""));
    if (read === undefined || made === undefined) continue;
    const [from, to] = [read[0], made[0]];
    if (from === undefined || to === undefined) continue;
    const rankOf = (name: string) => typeOf(graph, name).shape.length;
    const areAlike = (names: readonly string[], rank: number) =>
      names.length > 1 && names.length <= MOST_PARTS && names.every((own) => rankOf(own) === rank);
    if (areAlike(made, rankOf(from))) add(from, made);
    if (made.length === 1 && areAlike(read, rankOf(to))) add(to, read);
  }
  return [...found.values()];
}

function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}
