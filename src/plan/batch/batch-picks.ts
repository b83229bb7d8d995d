/**
 * Whether rows that are picked by index belong to the sample that they are picked for. A graph
 * shows this if the indices along the dim of the batch are made of constants: `x[arange(batch),
 * last]` picks a row of sample i for sample i. Indices that depend on data show nothing.
 */
import type { GraphBuilder, Node, Value } from "../../graph/index.ts";
import { operatorTable } from "../../ops/index.ts";
import { evaluateNode, fromTensor, type ReferenceTensor } from "../../reference/index.ts";
import { elementCount, isFloat, type Shape } from "../../tensor/index.ts";
import type { Pair } from "./batch-kind.ts";

/** Stands for an element that depends on data. It is larger than any row index. */
const UNKNOWN = 2 ** 40;

/** The dim whose size differs in the whole batch; -1 if there is none. */
export function batchDim({ part, whole }: Pair): number {
  return part.shape.findIndex((size, dim) => size !== whole.shape[dim]);
}

/** Row indices, and the tensor that they index. */
export interface Picking {
  readonly numbers: Pair;
  /** If `numbers` holds tuples: which index of the tuple, along its last dim, is meant. */
  readonly component: number | undefined;
  readonly from: Pair;
  /** The dim of `from` that is the batch. */
  readonly dim: number;
}

/** @param samples the numbers of samples of a part and of the whole */
export function picksOwnRows(
  { numbers, component, from, dim }: Picking,
  samples: readonly [part: number, whole: number],
): boolean {
  const own = batchDim(numbers);
  if (own < 0) return false;
  return (["part", "whole"] as const).every((side, index) => {
    const known = new Known(numbers[side].builder).of(numbers[side]);
    const places = from[side].shape[dim] as number;
    const wanted = { dim: own, component, samples: samples[index] as number, places };
    return known !== undefined && isAligned(known, wanted);
  });
}

interface Alignment {
  readonly dim: number;
  readonly component: number | undefined;
  readonly samples: number;
  readonly places: number;
}

/** Whether each row has an index that belongs to its own sample. */
function isAligned({ data, shape }: ReferenceTensor, wanted: Alignment): boolean {
  const { dim, component, samples, places } = wanted;
  const rows = shape[dim] as number;
  if (rows % samples !== 0 || places % samples !== 0) return false;
  const inner = elementCount(shape.slice(dim + 1));
  const width = shape.at(-1) as number;
  const [rowsEach, placesEach] = [rows / samples, places / samples];
  for (const [index, number] of data.entries()) {
    if (component !== undefined && index % width !== component) continue;
    const row = Math.floor(index / inner) % rows;
    const place = number < 0 ? number + places : number;
    if (Math.floor(place / placesEach) !== Math.floor(row / rowsEach)) return false;
  }
  return true;
}

/** Evaluates integers of a graph as far as they do not depend on its inputs. */
class Known {
  readonly #builder: GraphBuilder;
  readonly #found = new Map<string, ReferenceTensor | undefined>();

  constructor(builder: GraphBuilder) {
    this.#builder = builder;
  }

  /**
   * The elements of a value. Elements that depend on data are UNKNOWN; undefined if all of them do.
   */
  of(value: Value): ReferenceTensor | undefined {
    if (!this.#found.has(value.name)) this.#found.set(value.name, this.#make(value));
    return this.#found.get(value.name);
  }

  #make(value: Value): ReferenceTensor | undefined {
    const constant = this.#builder.constantOf(value);
    if (constant !== undefined) return fromTensor(constant);
    const node = this.#builder.makerOf(value);
    if (node === undefined || isFloat(value.dtype)) return undefined;
    const { moves = false, indices, draws } = operatorTable.find(node.op) ?? {};
    if (draws === true) return undefined;
    const inputs = this.#inputs(node, moves && indices === undefined);
    const output = node.outputs.indexOf(value.name);
    const types = node.outputs.map((name) => {
      const { dtype, shape } = this.#builder.value(name);
      // UNKNOWN must not be changed by a conversion.
      return { dtype: moves ? ("float64" as const) : dtype, shape };
    });
    return inputs && evaluateNode(node, inputs, types)[output];
  }

  /**
   * The inputs of a node. Undefined unless all are known or, for a node that only moves elements,
   * at least some.
   */
  #inputs(node: Node, isPartial: boolean): (ReferenceTensor | undefined)[] | undefined {
    const inputs: (ReferenceTensor | undefined)[] = [];
    let some = 0;
    for (const name of node.inputs) {
      const value = name === "" ? undefined : this.#builder.value(name);
      const known = value && this.of(value);
      const isWhole = known !== undefined && !known.data.includes(UNKNOWN);
      if (value !== undefined && !isWhole && !isPartial) return undefined;
      if (known !== undefined) some += 1;
      inputs.push(known ?? (value && unknown(value.shape)));
    }
    return some > 0 ? inputs : undefined;
  }
}

function unknown(shape: Shape): ReferenceTensor {
  return { dtype: "float64", shape, data: new Float64Array(elementCount(shape)).fill(UNKNOWN) };
}
