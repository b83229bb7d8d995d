/**
 * Initial values. They depend only on the seed and the name of the parameter, so every worker makes
 * the same values, in any order, and a model that gains a layer keeps the values of the others.
 * Random values are graphs for the engine.
 */
import { full, normal, uniform } from "../functional/index.ts";
import type { Graph, GraphBuilder, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { type Tensor, type TensorType, tensorFrom } from "../tensor/index.ts";
import type { Initializer } from "./model.ts";

/** An initial value: the tensor itself, or a graph whose only output is the tensor. */
export type InitialValue =
  | { readonly kind: "tensor"; readonly tensor: Tensor }
  | {
      readonly kind: "graph";
      readonly graph: Graph;
      readonly inputs: Readonly<Record<string, Tensor>>;
    };

/**
 * Makes the initial value of a parameter or state. The graph depends on type and initializer only,
 * so equal layers share it.
 */
export function initialValue(
  { name, type, initializer }: { name: string; type: TensorType; initializer: Initializer },
  seed: number,
): InitialValue {
  if (initializer.kind === "tensor") return { kind: "tensor", tensor: initializer.tensor };
  const graph = initialGraph(type, initializer);
  const key = tensorFrom("int32", [1], [initialKey(seed, name)]);
  return { kind: "graph", graph, inputs: graph.inputs.length === 0 ? {} : { key } };
}

function initialGraph(
  type: TensorType,
  initializer: Exclude<Initializer, { kind: "tensor" }>,
): Graph {
  const builder = newBuilder(`initial ${initializer.kind}`);
  const { dtype } = type;
  switch (initializer.kind) {
    case "zeros":
      return builder.build([full(builder, dtype, type.shape, 0)]);
    case "ones":
      return builder.build([full(builder, dtype, type.shape, 1)]);
    case "constant":
      return builder.build([full(builder, dtype, type.shape, initializer.value)]);
    case "normal":
      return builder.build([
        normal(builder, type.shape, keyOf(builder), { ...initializer, dtype }),
      ]);
    case "uniform":
      return builder.build([
        uniform(builder, type.shape, keyOf(builder), { ...initializer, dtype }),
      ]);
  }
}

function keyOf(builder: GraphBuilder): Value {
  return builder.input("key", { dtype: "int32", shape: [1] });
}

/**
 * A key of 32 bits from the seed and a name: FNV-1a over the name's UTF-16 units, then the
 * finalizer of MurmurHash3.
 */
export function initialKey(seed: number, name: string): number {
  let hash = mix(Math.floor(seed / 2 ** 32) ^ mix(seed | 0));
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return mix(hash);
}

function mix(value: number): number {
  let x = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
