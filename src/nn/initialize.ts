/**
 * Initial values. They are a function of (seed, name of the parameter) alone, so that every worker makes the same ones,
 * in any order, and a model that gains a layer keeps the values of the others. Random ones are graphs for the engine.
 */
import { add, full, mul, reshape } from "../functional/index.ts";
import type { Graph, GraphBuilder, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { elementCount, type Tensor, type TensorType, tensorFrom } from "../tensor/index.ts";
import type { Initializer } from "./model.ts";
import { randomNormal, randomUniform } from "./random.ts";

/** Values given as they are, or a graph that makes them; its one output is the tensor. */
export type InitialValue =
  | { readonly kind: "tensor"; readonly tensor: Tensor }
  | {
      readonly kind: "graph";
      readonly graph: Graph;
      readonly inputs: Readonly<Record<string, Tensor>>;
    };

/** How a parameter or state gets its first value. The graph depends on type and initializer only, so equal layers share it. */
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
  switch (initializer.kind) {
    case "zeros":
      return builder.build([full(builder, type.dtype, type.shape, 0)]);
    case "ones":
      return builder.build([full(builder, type.dtype, type.shape, 1)]);
    case "constant":
      return builder.build([full(builder, type.dtype, type.shape, initializer.value)]);
    case "normal": {
      const { mean = 0, standardDeviation } = initializer;
      const draw = drawRow(builder, type, randomNormal);
      return builder.build([add(mul(draw, standardDeviation), mean)]);
    }
    case "uniform": {
      const { low, high } = initializer;
      return builder.build([add(mul(drawRow(builder, type, randomUniform), high - low), low)]);
    }
  }
}

/** All elements from one key, input `key`. */
function drawRow(builder: GraphBuilder, type: TensorType, draw: typeof randomNormal): Value {
  const key = builder.input("key", { dtype: "int32", shape: [1] });
  const row = draw(key, [1, elementCount(type.shape)], { stream: 0, dtype: type.dtype });
  return reshape(row, type.shape);
}

/** 32 bits from the seed and a name: FNV-1a over the name's UTF-16 units, then the finalizer of MurmurHash3. */
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
