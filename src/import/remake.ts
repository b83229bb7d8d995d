/** Builds the nodes of a graph again for another number of samples, as planned in `rebatch.ts`. */
import { LockstepError } from "../errors.ts";
import { type Graph, type GraphBuilder, type Node, typeOf, type Value } from "../graph/index.ts";
import { type Shape, type Tensor, type TensorType } from "../tensor/index.ts";
import { drawLine, lineOf } from "./line.ts";
import { mixesSamples, moved, type Place } from "./place.ts";

/** The choices that were made for nodes, by their names. */
export interface Choices {
  /**
   * Nodes that repeat along the batch what is the same for all samples, with the dim of the batch.
   */
  readonly repeats: Map<string, number>;
  /** Inputs that get as many rows as there are samples. */
  readonly rows: Map<string, ReadonlyMap<number, number>>;
  /**
   * The index of the place that the batch has after a Reshape, among several. Default: the first.
   */
  readonly places: Map<string, number>;
}

/** Builds nodes at the other size. */
export interface Rebatching {
  readonly graph: Graph;
  /** The batch size in the file. */
  readonly from: number;
  readonly choices: Choices;
}

const NO_PLACE = "mixes samples, or its result does not grow with the batch";
const MERGES = "it merges the batch with another dim";
/** Operators whose result has the elements of their first input in the same order. */
const KEEPS_ORDER = new Set(["Reshape", "Flatten", "Squeeze", "Unsqueeze"]);
/**
 * Operators that write to some positions of their first input: positions of the other samples would
 * be missing.
 */
const WRITES = new Set(["ScatterND", "ScatterElements"]);
/** Builds the nodes of a graph at another batch size, with the choices of the plan. */
export class Maker {
  readonly values: Map<string, Value>;
  readonly plan: Rebatching;
  /**
   * The place of the batch, by the name of the value; absent if the value is the same for all
   * samples.
   */
  readonly places = new Map<string, Place>();
  readonly makers = new Map<string, Node>();
  /** The number of places that the batch could have after a Reshape. */
  readonly possible = new Map<string, number>();
  readonly #builder: GraphBuilder;
  readonly #to: number;
  #isTrying = false;
  readonly #hook: ((node: Node, x: Value) => Value | undefined) | undefined;

  constructor(
    plan: Rebatching,
    builder: GraphBuilder,
    to: number,
    values: ReadonlyMap<string, Value>,
    inputs: ReadonlySet<string>,
    hook?: (node: Node, x: Value) => Value | undefined,
  ) {
    this.plan = plan;
    this.#builder = builder;
    this.#to = to;
    this.#hook = hook;
    this.values = new Map(values);
    for (const name of inputs) this.places.set(name, { dim: 0, outer: 1, inner: 1 });
  }

  /** Builds all nodes, or returns the first that cannot be built, and why. */
  run(): { readonly node: Node; readonly reason: LockstepError } | undefined {
    for (const node of this.plan.graph.nodes) {
      for (const output of node.outputs) this.makers.set(output, node);
      try {
        this.#make(node, this.plan.choices.rows.get(node.name) ?? new Map<number, number>());
      } catch (error) {
        if (!(error instanceof LockstepError)) throw error;
        return { node, reason: located(node, error) };
      }
    }
    return undefined;
  }

  #moved(node: Node, place: Place, after: Shape): Place | undefined {
    const { from, choices } = this.plan;
    const found = moved(this.typeOf(node.inputs[0] as string).shape, place, after, from);
    this.possible.set(node.name, found.length);
    return found[choices.places.get(node.name) ?? 0];
  }

  /** Whether a node can be built in this way; the attempt leaves no trace. */
  isMade(node: Node, rows: ReadonlyMap<number, number>): boolean {
    const before = new Map(this.values);
    this.#isTrying = true;
    try {
      this.#make(node, rows);
      return true;
    } catch (error) {
      if (error instanceof LockstepError) return false;
      throw error;
    } finally {
      this.#isTrying = false;
      this.values.clear();
      for (const [name, value] of before) this.values.set(name, value);
      for (const output of node.outputs) this.places.delete(output);
    }
  }

  #make(node: Node, rows: ReadonlyMap<number, number>): void {
    const varying = node.inputs.some((name) => this.places.has(name)) || rows.size > 0;
    const repeats = this.plan.choices.repeats.get(node.name);
    const results =
      this.#special(node, repeats) ??
      this.#builder.append(
        node.op,
        this.#isTrying ? this.#fresh() : node.name,
        node.inputs.map((name, index) => this.#input(name, rows.get(index))),
        node.attributes,
        this.#isTrying ? node.outputs.map((name) => (name === "" ? "" : "*")) : node.outputs,
      );
    const first = this.places.get(node.inputs[0] ?? "");
    const { constants } = this.plan.graph;
    const rank = this.typeOf(node.inputs[0] || (node.outputs[0] as string)).shape.length;
    if (first !== undefined && mixesSamples(node, first.dim, rank, constants)) fail(NO_PLACE);
    if (varying && WRITES.has(node.op) && first !== undefined) {
      const isWhole = [1, 2].every((at) => rows.has(at) || this.places.has(node.inputs[at] ?? ""));
      if (!isWhole) fail("it writes at positions that do not depend on the batch");
    }
    for (const [index, output] of node.outputs.entries()) {
      const value = results[index];
      if (output === "" || value === undefined) continue;
      this.values.set(output, value);
      if (!varying && repeats === undefined) continue;
      if (!this.places.has(output)) this.places.set(output, this.#placeOf(node, output, value));
    }
  }

  /** The place of the batch in an output: the dim whose size differs from the file's. */
  #placeOf(node: Node, output: string, value: Value): Place {
    const before = this.typeOf(output).shape;
    const { from } = this.plan;
    const changed = before.flatMap((size, dim) => (size === value.shape[dim] ? [] : [dim]));
    const [dim, ...others] = changed;
    if (dim === undefined || others.length > 0 || before.length !== value.shape.length) {
      return fail(NO_PLACE);
    }
    const [first = ""] = node.inputs;
    const place = this.places.get(first);
    if (place !== undefined && KEEPS_ORDER.has(node.op)) {
      const next = this.#moved(node, place, before);
      return next?.dim === dim ? next : fail(MERGES);
    }
    const factor = (before[dim] as number) / from;
    if (!Number.isInteger(factor) || value.shape[dim] !== factor * this.#to) return fail(NO_PLACE);
    if (factor === 1) return { dim, outer: 1, inner: 1 };
    for (const name of node.inputs) {
      const own = this.places.get(name);
      if (own !== undefined && own.outer * own.inner === factor) return { ...own, dim };
    }
    return fail(MERGES);
  }

  /** Builds operators whose results have a shape that a constant gives. */
  #special(node: Node, repeats: number | undefined): Value[] | undefined {
    const [name = "", target = ""] = node.inputs;
    const [output = ""] = node.outputs;
    const x = this.values.get(name);
    const place = this.places.get(name);
    const own = x && this.#hook?.(node, x);
    if (own !== undefined) return [own];
    const after = this.plan.graph.types.get(output)?.shape ?? [];
    if (x === undefined || (place === undefined && repeats === undefined)) return undefined;
    if (node.op !== "Reshape" && node.op !== "Expand") return undefined;
    if (!this.plan.graph.constants.has(target)) fail("its shape is not known");
    const { from } = this.plan;
    const next =
      place === undefined
        ? { dim: repeats as number, outer: 1, inner: 1 }
        : node.op === "Reshape"
          ? this.#moved(node, place, after)
          : { ...place, dim: place.dim + after.length - x.shape.length };
    if (next === undefined) return fail(MERGES);
    const shape = [...after];
    shape[next.dim] = next.outer * this.#to * next.inner;
    if (node.op === "Expand" && after[next.dim] !== next.outer * from * next.inner) fail(NO_PLACE);
    this.places.set(output, next);
    const inputs = [x, this.#builder.ints(shape)];
    return this.#builder.append(node.op, node.name, inputs, node.attributes, node.outputs);
  }

  #input(name: string, rows: number | undefined): Value | undefined {
    if (name === "") return undefined;
    const tensor = this.plan.graph.constants.get(name);
    const value = this.values.get(name) ?? this.#constant(name, tensor as Tensor);
    if (rows === undefined) return value;
    if (this.plan.from === 1) {
      const shape = value.shape.map((size, dim) => (dim === rows ? this.#to : size));
      return this.#builder.one("Expand", [value, this.#builder.ints(shape)]);
    }
    const line = lineOf(tensor as Tensor, rows);
    return line === undefined
      ? fail("a constant has different elements for each sample")
      : this.#builder.constant(drawLine(line, rows, this.#to));
  }

  /** A name for a node that is only attempted. */
  #fresh(): string {
    let count = 1;
    while (this.#builder.has(`try_${count}`) || this.#builder.has(`try_${count}.0`)) count++;
    return `try_${count}`;
  }

  #constant(name: string, tensor: Tensor): Value {
    const value = this.#builder.has(name)
      ? this.#builder.constant(tensor)
      : this.#builder.namedConstant(name, tensor);
    this.values.set(name, value);
    return value;
  }

  /** The type of a value in the file. */
  typeOf(name: string): TensorType {
    return typeOf(this.plan.graph, name);
  }
}

function fail(what: string): never {
  throw new LockstepError("ONNX_UNSUPPORTED", what);
}

function located(node: Node, error: LockstepError): LockstepError {
  const [text = ""] = error.message.split("\n  ");
  return new LockstepError("ONNX_UNSUPPORTED", `node "${node.name}" (${node.op}): ${text}`, {
    cause: error,
  });
}
