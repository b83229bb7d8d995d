/** Graphs from sums over the parts of a batch to numbers of the whole batch. */
import { cast, concat, mul, reshape } from "../../functional/index.ts";
import type { Graph, GraphBuilder, Value } from "../../graph/index.ts";
import { extendGraph } from "../../ops/index.ts";
import {
  type DType,
  elementCount,
  isFloat,
  type Tensor,
  type TensorType,
} from "../../tensor/index.ts";
import { buildNamed } from "../named.ts";
import type { Term } from "./batch-sums.ts";

/**
 * Adds a tail to a builder and returns its results.
 * @param sums the sum of each term over all parts
 */
export function addTail(
  builder: GraphBuilder,
  tail: Graph,
  terms: readonly Pick<Term, "factor">[],
  sums: readonly Value[],
): Value[] {
  const values = new Map<string, Value>();
  for (const [index, { factor }] of terms.entries()) {
    const type = tail.types.get(`term.${index}`);
    const sum = sums[index];
    if (type === undefined || sum === undefined) continue;
    const whole = factor === 1 || !isFloat(sum.dtype) ? sum : mul(sum, factor);
    values.set(`term.${index}`, reshape(cast(whole, type.dtype), type.shape));
  }
  const read = (name: string): Value | undefined => {
    if (name === "") return undefined;
    const known = values.get(name);
    if (known !== undefined) return known;
    const constant = builder.constant(tail.constants.get(name) as Tensor);
    values.set(name, constant);
    return constant;
  };
  for (const node of tail.nodes) {
    const names = node.outputs.map((name) => (name === "" ? "" : `tail/${name}`));
    const made = builder.append(
      node.op,
      `tail/${node.name}`,
      node.inputs.map(read),
      node.attributes,
      names,
    );
    for (const [index, name] of node.outputs.entries()) {
      if (name !== "") values.set(name, made[index] as Value);
    }
  }
  return tail.outputs.map((name) => values.get(name) as Value);
}

/** The type of a vector of all terms, one after the other. */
export function vectorType(terms: readonly Term[]): TensorType {
  const width = terms.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  return { dtype: wideType(terms.map(({ type }) => type.dtype)), shape: [width] };
}

/** The graph of a part with all of its terms in one vector, its only output, of this name. */
export function vectorGraph(graph: Graph, terms: readonly Term[], name: string): Graph {
  const { dtype } = vectorType(terms);
  const builder = extendGraph(graph);
  const parts = terms.map(({ output, type }) =>
    reshape(cast(builder.value(output), dtype), [elementCount(type.shape)]),
  );
  return buildNamed(builder, new Map([[name, concat(parts, 0)]]));
}

/** The wider of float32 and the given element types. */
export function wideType(dtypes: readonly DType[]): DType {
  return dtypes.includes("float64") ? "float64" : "float32";
}
