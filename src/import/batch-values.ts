/**
 * Makes nodes that compute, for any batch size, the values that are constants in three builds of a
 * model.
 */
import type { Node } from "../graph/index.ts";
import {
  DTYPES,
  type DType,
  type Shape,
  sameShape,
  scalar,
  type Tensor,
  type TensorType,
  tensorFrom,
  toNumbers,
} from "../tensor/index.ts";
import { lineOf } from "./line.ts";
import {
  cellOf,
  Inexpressible,
  affine as lineThrough,
  SIZES,
  sameTensor,
  type Triple,
} from "./vary.ts";

/** Where the nodes are added. All names are names of values. */
export interface NodeSink {
  /** int64 [1]: the batch size, read from an input. */
  batch(): string;
  typeOf(value: string): TensorType;
  emit(
    op: string,
    inputs: readonly string[],
    type: TensorType,
    attributes?: Node["attributes"],
  ): string;
  constant(what: string, tensor: Tensor): string;
}

/** The types of the values are those at the first of the sizes. */
export class BatchValues {
  readonly #to: NodeSink;

  constructor(to: NodeSink) {
    this.#to = to;
  }

  /** A value that replaces tensors whose shapes differ. Throws Inexpressible. */
  grown(tensors: Triple<Tensor>, where: string): string {
    return this.#repeated(tensors, where) ?? this.#line(tensors, where);
  }

  /** offset + factor · batch, element by element. */
  affine(tensors: Triple<Tensor>, where: string): string {
    const [{ dtype, shape }] = tensors;
    if (tensors.every((tensor) => sameTensor(tensor, tensors[0]))) {
      return this.#to.constant("first", tensors[0]);
    }
    if (dtype !== "int64" && dtype !== "int32") dependent(where);
    const parts = transposed(tensors).map((column) => lineThrough(column, where));
    const type: TensorType = { dtype, shape };
    const constant = (what: string, numbers: readonly number[]) =>
      this.#to.constant(what, tensorFrom(dtype, shape, numbers));
    const value = this.#reshaped(
      this.#cast(this.#to.batch(), dtype),
      shape.length === 0 ? [] : [1],
    );
    const factors = parts.map(({ factor }) => factor);
    const offsets = parts.map(({ offset }) => offset);
    const scaled = this.#to.emit("Mul", [constant("factor", factors), value], type);
    if (offsets.every((offset) => offset === 0)) return scaled;
    return this.#to.emit("Add", [scaled, constant("offset", offsets)], type);
  }

  /**
   * A constant that is the same at every index of the dims that vary: the part at one index,
   * expanded.
   */
  #repeated(tensors: Triple<Tensor>, where: string): string | undefined {
    const [first] = tensors;
    const columns = columnsOf(tensors, where);
    const varying = columns.map(([a, b, c]) => a !== b || b !== c);
    const cells = tensors.map((tensor) => cellOf(tensor, varying));
    const [cell] = cells;
    const isSame = cells.every((other) => other !== undefined && cell && sameTensor(other, cell));
    if (cell === undefined || !isSame) return undefined;
    const sizes = columns.map((_, dim) => tensors.map(({ shape }) => shape[dim] as number));
    const shapes = tensors.map((__, at) => ints(sizes.map((own) => own[at] as number)));
    const shape = this.affine(shapes as unknown as Triple<Tensor>, where);
    const type = { dtype: first.dtype, shape: first.shape };
    return this.#to.emit("Expand", [this.#to.constant("cell", cell), shape], type);
  }

  /**
   * A constant that rises by equal steps from sample to sample, such as the index of each sample.
   */
  #line(tensors: Triple<Tensor>, where: string): string {
    const columns = columnsOf(tensors, where);
    const dims = columns.flatMap(([a, b, c], dim) => (a === b && b === c ? [] : [dim]));
    const [dim, ...others] = dims;
    if (dim === undefined || others.length > 0) return dependent(where);
    const { factor, offset } = lineThrough(columns[dim] as Triple<number>, where);
    if (offset !== 0) return dependent(where);
    if (factor === 1) return this.#alongBatch(tensors, dim, where) ?? dependent(where);
    // The dim is a multiple of the batch: the samples are the outer or the inner dim of it.
    for (const at of [dim, dim + 1]) {
      const split = tensors.map(({ dtype, shape, bytes }, index) => {
        const pair = [factor, factor];
        pair[at - dim] = SIZES[index] as number;
        return { dtype, bytes, shape: [...shape.slice(0, dim), ...pair, ...shape.slice(dim + 1)] };
      });
      const value = this.#alongBatch(split as unknown as Triple<Tensor>, at, where);
      if (value === undefined) continue;
      return this.#reshaped(value, tensors[0].shape, dim);
    }
    return dependent(where);
  }

  #alongBatch(tensors: Triple<Tensor>, dim: number, where: string): string | undefined {
    const lines = tensors.map((tensor) => lineOf(tensor, dim));
    const [line] = lines;
    if (line === undefined || lines.includes(undefined)) return undefined;
    const part = (of: "first" | "step"): Triple<Tensor> =>
      lines.map((own) => own?.[of] ?? line.first) as unknown as Triple<Tensor>;
    if (lines.some((own) => own?.step === undefined)) return undefined;
    const { dtype, shape } = tensors[0];
    const rank = shape.length;
    const [zero, one] = [0, 1].map((number) =>
      this.#to.constant("number", scalar("int64", number)),
    );
    const limit = this.#reshaped(this.#to.batch(), []);
    const places = this.#to.emit("Range", [zero as string, limit, one as string], {
      dtype: "int64",
      shape: [SIZES[0]],
    });
    const flat = shape.map((size, at) => (at === dim ? size : 1));
    const along = this.#reshaped(this.#cast(places, dtype), flat, rank === 1 ? undefined : dim);
    const step = this.affine(part("step"), where);
    const rise = this.#to.emit("Mul", [along, step], { dtype, shape });
    return this.#to.emit("Add", [rise, this.affine(part("first"), where)], { dtype, shape });
  }

  /** @param inferred the dim that follows from the others */
  #reshaped(value: string, shape: Shape, inferred?: number): string {
    const type = this.#to.typeOf(value);
    if (sameShape(type.shape, shape)) return value;
    const target = shape.map((size, dim) => (dim === inferred ? -1 : size));
    const inputs = [value, this.#to.constant("shape", ints(target))];
    return this.#to.emit("Reshape", inputs, { dtype: type.dtype, shape });
  }

  #cast(value: string, dtype: DType): string {
    const type = this.#to.typeOf(value);
    if (type.dtype === dtype) return value;
    const attributes = { to: { kind: "int", value: DTYPES[dtype].onnx } } as const;
    return this.#to.emit("Cast", [value], { dtype, shape: type.shape }, attributes);
  }
}

function dependent(where: string): never {
  throw new Inexpressible(`${where} has elements that depend on the batch size`);
}

/** For each dim, its size in the three builds. */
function columnsOf(tensors: Triple<Tensor>, where: string): Triple<number>[] {
  const [first] = tensors;
  if (tensors.some(({ shape }) => shape.length !== first.shape.length)) {
    throw new Inexpressible(`${where} has a different rank at other batch sizes`);
  }
  return first.shape.map(
    (_, dim) => tensors.map(({ shape }) => shape[dim]) as unknown as Triple<number>,
  );
}

export function ints(values: readonly number[]): Tensor {
  return tensorFrom("int64", [values.length], values);
}

/** For each element, its value in the three builds. */
export function transposed(tensors: Triple<Tensor>): Triple<number>[] {
  const [a, b, c] = tensors.map(toNumbers) as [number[], number[], number[]];
  return a.map((value, i) => [value, b[i] as number, c[i] as number]);
}
