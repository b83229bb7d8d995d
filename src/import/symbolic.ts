/**
 * Exports a model for any batch size. Graphs are static, so the same model is built at three sizes
 * and compared: a difference must be a shape that is affine in the batch, or a constant repeated
 * along it. Two sizes give the rule, the third verifies it.
 */
import { LockstepError } from "../errors.ts";
import type { Graph, Node } from "../graph/index.ts";
import { typeOf } from "../graph/index.ts";
import type { EncodeOptions } from "../onnx/index.ts";
import { checkOptions, count, type OptionKinds, word } from "../options.ts";
import { type Shape, sameShape, type Tensor, type TensorType } from "../tensor/index.ts";
import { BatchValues, ints, transposed } from "./batch-values.ts";
import { affine, Inexpressible, SIZES, sameTensor, type Triple } from "./vary.ts";

export interface SymbolicOptions {
  /** The name of the batch dim in the file. Default: `batch`. */
  readonly dim?: string;
  /** The batch size of the export if no form for all sizes is found. Default: 1. */
  readonly fixedBatch?: number;
}

export interface SymbolicExport {
  /**
   * The graph. Its types are those of one batch size; its operators work for all. Encode it with
   * `encode`.
   */
  readonly graph: Graph;
  readonly encode: Pick<EncodeOptions, "symbolicDims">;
  /** Why the batch size had to be fixed; undefined if it is not. */
  readonly fixed: string | undefined;
}

const SYMBOLIC_OPTIONS: OptionKinds<SymbolicOptions> = {
  dim: word.optional(),
  fixedBatch: count.optional(),
};

/**
 * A graph that runs at any batch size, derived from `build`; or the graph at a fixed size, and the
 * reason.
 */
export function toSymbolicBatch(
  build: (batch: number) => Graph,
  options: SymbolicOptions = {},
): SymbolicExport {
  checkOptions("toSymbolicBatch", options, SYMBOLIC_OPTIONS);
  const [a, b, c] = SIZES;
  try {
    const graphs: Triple<Graph> = [build(a), build(b), build(c)];
    return new Comparison(graphs, options.dim ?? "batch").result();
  } catch (error) {
    // A model that only has one batch size says so itself.
    if (!(error instanceof Inexpressible || error instanceof LockstepError)) throw error;
    const [fixed = ""] = error.message.split("\n");
    return { graph: build(options.fixedBatch ?? 1), encode: {}, fixed };
  }
}

class Comparison {
  readonly #graphs: Triple<Graph>;
  readonly #dim: string;
  readonly #nodes: Node[] = [];
  readonly #constants: Map<string, Tensor>;
  readonly #types: Map<string, TensorType>;
  /** Values made for constants that vary, by the names of the three constants. */
  readonly #made = new Map<string, string>();
  #batch: string | undefined;
  readonly #values: BatchValues;

  constructor(graphs: Triple<Graph>, dim: string) {
    this.#graphs = graphs;
    this.#dim = dim;
    this.#constants = new Map(graphs[0].constants);
    this.#types = new Map(graphs[0].types);
    this.#values = new BatchValues({
      batch: () => this.#batchSize(),
      typeOf: (name) => this.#types.get(name) as TensorType,
      emit: (...node) => this.#emit(...node),
      constant: (what, tensor) => this.#constant(what, tensor),
    });
  }

  result(): SymbolicExport {
    const [graph, ...others] = this.#graphs;
    for (const other of others) {
      if (
        other.nodes.length !== graph.nodes.length ||
        !sameNames(other.inputs, graph.inputs) ||
        !sameNames(other.outputs, graph.outputs)
      ) {
        throw new Inexpressible("the model has different nodes at other batch sizes");
      }
    }
    for (let at = 0; at < graph.nodes.length; at++) this.#node(at);
    const used = new Set([...graph.outputs, ...this.#nodes.flatMap((node) => node.inputs)]);
    for (const name of this.#constants.keys()) {
      if (!used.has(name)) this.#constants.delete(name);
    }
    const symbolicDims = Object.fromEntries(
      [...graph.inputs, ...graph.outputs].map((name) => [name, this.#varyingDims(name)]),
    );
    const types = new Map([...this.#types].filter(([name]) => this.#isKept(name, used)));
    return {
      graph: { ...graph, nodes: this.#nodes, constants: this.#constants, types },
      encode: { symbolicDims },
      fixed: undefined,
    };
  }

  #isKept(name: string, used: ReadonlySet<string>): boolean {
    const isOldConstant = this.#graphs[0].constants.has(name);
    return !isOldConstant || used.has(name);
  }

  /**
   * The dims of an input or output that are the batch, or a multiple of it, which gets a name of
   * its own.
   */
  #varyingDims(name: string): Record<number, string> {
    const shapes = this.#shapes(name);
    const dims: Record<number, string> = {};
    for (const [dim, size] of shapes[0].entries()) {
      const sizes = [size, shapes[1][dim], shapes[2][dim]] as Triple<number>;
      if (sizes[0] === sizes[1] && sizes[1] === sizes[2]) continue;
      const { factor, offset } = affine(sizes, `dim ${dim} of "${name}"`);
      dims[dim] = offset === 0 && factor === 1 ? this.#dim : `${this.#dim}_${name}_${dim}`;
    }
    return dims;
  }

  #shapes(name: string): Triple<Shape> {
    const [a, b, c] = this.#graphs;
    const shapes = [typeOf(a, name), typeOf(b, name), typeOf(c, name)].map(({ shape }) => shape);
    if (shapes.some((shape) => shape.length !== shapes[0]?.length)) {
      throw new Inexpressible(`"${name}" has a different rank at other batch sizes`);
    }
    return shapes as unknown as Triple<Shape>;
  }

  #node(at: number): void {
    const nodes = this.#graphs.map((graph) => graph.nodes[at] as Node) as unknown as Triple<Node>;
    const [node, ...others] = nodes;
    for (const other of others) {
      if (
        other.op !== node.op ||
        !sameNames(other.outputs, node.outputs) ||
        other.inputs.length !== node.inputs.length ||
        JSON.stringify(other.attributes) !== JSON.stringify(node.attributes)
      ) {
        throw new Inexpressible(`node "${node.name}" (${node.op}) differs at other batch sizes`);
      }
    }
    const inputs = node.inputs.map((_, index) => {
      const names = nodes.map(({ inputs }) => inputs[index] as string);
      return this.#input(names as unknown as Triple<string>, node, index);
    });
    this.#nodes.push({ ...node, inputs });
  }

  #input(names: Triple<string>, node: Node, index: number): string {
    const [name] = names;
    const tensors = names.map((own, i) => this.#graphs[i]?.constants.get(own));
    if (tensors.every((tensor) => tensor === undefined)) {
      if (names.every((own) => own === name)) return name;
    } else if (!tensors.includes(undefined)) {
      const triple = tensors as unknown as Triple<Tensor>;
      if (triple.every((tensor) => sameTensor(tensor, triple[0]))) return name;
      const key = `${names.join("\n")}\n${node.op === "Reshape" ? node.name : ""}`;
      const known = this.#made.get(key) ?? this.#varying(triple, node, index);
      this.#made.set(key, known);
      return known;
    }
    throw new Inexpressible(`node "${node.name}" (${node.op}) reads different values`);
  }

  #varying(tensors: Triple<Tensor>, node: Node, index: number): string {
    const where = `input ${index} of node "${node.name}" (${node.op})`;
    const [first] = tensors;
    if (!tensors.every(({ shape }) => sameShape(shape, first.shape))) {
      return this.#values.grown(tensors, where);
    }
    if (node.op === "Reshape" && index === 1) {
      const simple = this.#reshape(transposed(tensors), node);
      if (simple !== undefined) return simple;
    }
    return this.#values.affine(tensors, where);
  }

  /** 0 for a dim that equals that of the input, and at most one -1. */
  #reshape(columns: readonly Triple<number>[], node: Node): string | undefined {
    if (node.attributes["allowzero"]?.value === 1) return undefined;
    const input = this.#shapes(node.inputs[0] as string);
    let inferred = columns.filter((column) => column[0] === -1).length;
    const values = columns.map((column, dim) => {
      if (column.every((value) => value === column[0])) return column[0];
      if (column.every((value, i) => value === input[i]?.[dim])) return 0;
      inferred++;
      return -1;
    });
    return inferred > 1 ? undefined : this.#constant("shape", ints(values));
  }

  /** int64 [1]: the batch size, read from an input. */
  #batchSize(): string {
    if (this.#batch !== undefined) return this.#batch;
    for (const name of this.#graphs[0].inputs) {
      const shapes = this.#shapes(name);
      const dim = shapes[0].findIndex((_, at) =>
        shapes.every((shape, i) => shape[at] === SIZES[i]),
      );
      if (dim < 0) continue;
      const attributes = {
        start: { kind: "int", value: dim },
        end: { kind: "int", value: dim + 1 },
      } as const;
      const type: TensorType = { dtype: "int64", shape: [1] };
      this.#batch = this.#emit("Shape", [name], type, attributes);
      return this.#batch;
    }
    throw new Inexpressible("no input has a dim that is the batch");
  }

  #emit(
    op: string,
    inputs: readonly string[],
    type: TensorType,
    attributes: Node["attributes"] = {},
  ): string {
    const name = this.#fresh(`${this.#dim}/${op}`);
    this.#types.set(name, type);
    this.#nodes.push({ op, name, inputs, outputs: [name], attributes });
    return name;
  }

  #constant(what: string, tensor: Tensor): string {
    const name = this.#fresh(`${this.#dim}/${what}`);
    this.#types.set(name, { dtype: tensor.dtype, shape: tensor.shape });
    this.#constants.set(name, tensor);
    return name;
  }

  #fresh(base: string): string {
    let name = base;
    for (let count = 1; this.#types.has(name); count++) name = `${base}_${count}`;
    return name;
  }
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}
