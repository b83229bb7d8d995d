/**
 * Whether index tuples begin with the number of the row in which they lie: such as those that move
 * what belongs to a sample within that sample. A dim of rows can then be cut without an exchange.
 */
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { normalizeDim, type Tensor, toNumbers } from "../tensor/index.ts";

const makers = new WeakMap<Graph, ReadonlyMap<string, Node>>();

/** Whether tuple [b, …] of these, which lie along the last dim, begins with b: the graph shows it. */
export function areOwnRows(graph: Graph, tuples: string): boolean {
  const { shape } = typeOf(graph, tuples);
  const constant = graph.constants.get(tuples);
  if (shape.length < 2) return false;
  if (constant !== undefined) return isRowNumber(constant, shape.at(-1) as number);
  const maker = makerOf(graph, tuples);
  const [first = "", ...others] = maker?.inputs ?? [];
  const axis = normalizeDim(Number(maker?.attributes["axis"]?.value ?? 0), shape.length);
  if (maker?.op !== "Concat" || others.length === 0 || axis !== shape.length - 1) return false;
  return typeOf(graph, first).shape.at(-1) === 1 && countsRows(graph, first);
}

/** Whether each element of a value is its index along the first dim. */
function countsRows(graph: Graph, name: string): boolean {
  const constant = graph.constants.get(name);
  if (constant !== undefined) return isRowNumber(constant, 1);
  const maker = makerOf(graph, name);
  const [source = "", ...others] = maker?.inputs ?? [];
  if (maker === undefined || source === "") return false;
  const [from, to] = [typeOf(graph, source).shape, typeOf(graph, name).shape];
  switch (maker.op) {
    case "Range": {
      const [start, step] = [source, others[1] ?? ""].map((own) => graph.constants.get(own));
      return start !== undefined && step !== undefined && isNumber(start, 0) && isNumber(step, 1);
    }
    case "Expand":
      return from.length === to.length && from[0] === to[0] && countsRows(graph, source);
    case "Reshape":
    case "Unsqueeze":
    case "Squeeze":
    case "Cast":
    case "Identity":
      return from[0] === to[0] && countsRows(graph, source);
    default:
      return false;
  }
}

function makerOf(graph: Graph, name: string): Node | undefined {
  const known =
    makers.get(graph) ??
    new Map(graph.nodes.flatMap((node) => node.outputs.map((own) => [own, node] as const)));
  makers.set(graph, known);
  return known.get(name);
}

function isNumber(constant: Tensor, wanted: number): boolean {
  return toNumbers(constant).every((number) => number === wanted);
}

/** @param width of tuples, of which the first component is looked at */
function isRowNumber(constant: Tensor, width: number): boolean {
  const [rows = 0] = constant.shape;
  const numbers = toNumbers(constant);
  const each = numbers.length / rows;
  return numbers.every((number, at) => at % width !== 0 || number === Math.floor(at / each));
}
