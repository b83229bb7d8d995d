/**
 * A file of one batch size, as exporters write it by default, at another size. The file's graph is made as it stands; then its
 * nodes are made anew, where inputs have the other size. What is known is where the batch lies in each value: `outer · batch ·
 * inner` is the size of one of its dims. Types are inferred at both sizes, so that an operator has no rule of its own here, beside
 * those whose shapes are constants. Whatever is not understood so is refused, and the batch stays what the file says.
 */
import { LockstepError } from "../../errors.ts";
import type { Graph, GraphBuilder, Node, Value } from "../../graph/index.ts";
import { typeOf } from "../../graph/index.ts";
import { newBuilder } from "../../ops/index.ts";
import { isFloat, type Tensor } from "../../tensor/index.ts";
import { drawLine, lineOf } from "../line.ts";
import { moved, type Place } from "./place.ts";

/** What had to be decided for nodes, by their names. */
interface Choices {
  /** Nodes that repeat what is the same for all samples along the batch, and the dim of it. */
  readonly repeats: Map<string, number>;
  /** Inputs that get as many rows as there are samples. */
  readonly rows: Map<string, ReadonlyMap<number, number>>;
}

/** What makes nodes at the other size. */
export interface Rebatching {
  readonly graph: Graph;
  /** The batch in the file. */
  readonly from: number;
  readonly choices: Choices;
}

const NO_PLACE = "mixes samples, or its result does not grow with the batch";
const MERGES = "it merges the batch with another dim";
/** Operators whose result has the elements of their first input in the same order. */
const KEEPS_ORDER = new Set(["Reshape", "Flatten", "Squeeze", "Unsqueeze"]);
/** Operators that write to some places of their first input: places for the other samples would be missing. */
const WRITES = new Set(["ScatterND", "ScatterElements"]);
// Sizes to decide at: primes, so that no size of the model is a multiple.
const PROBES = [23, 29];

/**
 * Finds how to make the graph at other sizes than `from`, that of its inputs.
 * @param inputs the inputs that have the batch as their first dim
 * @throws ONNX_UNSUPPORTED with the first node that stands in the way
 */
export function planRebatch(graph: Graph, from: number, inputs: ReadonlySet<string>): Rebatching {
  const plan: Rebatching = { graph, from, choices: { repeats: new Map(), rows: new Map() } };
  const probe = PROBES.find((size) => size !== from) as number;
  for (let tries = 0; ; tries++) {
    const builder = newBuilder(graph.name);
    const values = new Map(
      graph.inputs.map((name) => {
        const { dtype, shape } = typeOf(graph, name);
        const own = inputs.has(name) ? [probe, ...shape.slice(1)] : shape;
        return [name, builder.input(name, { dtype, shape: own })] as const;
      }),
    );
    const maker = new Maker(plan, builder, probe, values, inputs);
    const failed = maker.run();
    if (failed === undefined) return plan;
    if (tries >= graph.nodes.length || !maker.decide(failed.node)) throw failed.reason;
  }
}

/** Makes all nodes of the plan in `builder` at the size `to`. `values`: of the graph's inputs; returns all values by name. */
export function rebatch(
  plan: Rebatching,
  builder: GraphBuilder,
  to: number,
  values: ReadonlyMap<string, Value>,
  options: { inputs: ReadonlySet<string>; node?: (node: Node, x: Value) => Value | undefined },
): ReadonlyMap<string, Value> {
  const maker = new Maker(plan, builder, to, values, options.inputs, options.node);
  const failed = maker.run();
  if (failed !== undefined) throw failed.reason;
  return maker.values;
}

class Maker {
  readonly values: Map<string, Value>;
  readonly #plan: Rebatching;
  readonly #builder: GraphBuilder;
  readonly #to: number;
  readonly #places = new Map<string, Place>();
  readonly #makers = new Map<string, Node>();
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
    this.#plan = plan;
    this.#builder = builder;
    this.#to = to;
    this.#hook = hook;
    this.values = new Map(values);
    for (const name of inputs) this.#places.set(name, { dim: 0, outer: 1, inner: 1 });
  }

  /** All nodes; or the first that cannot be made, and why. */
  run(): { readonly node: Node; readonly reason: LockstepError } | undefined {
    for (const node of this.#plan.graph.nodes) {
      for (const output of node.outputs) this.#makers.set(output, node);
      try {
        this.#make(node, this.#plan.choices.rows.get(node.name) ?? new Map<number, number>());
      } catch (error) {
        if (!(error instanceof LockstepError)) throw error;
        return { node, reason: located(node, error) };
      }
    }
    return undefined;
  }

  /** Finds a choice by which the node can be made; false if there is none. */
  decide(node: Node): boolean {
    for (const [index, name] of node.inputs.entries()) {
      if (name === "" || this.#places.has(name)) continue;
      if (this.#repeatIn(name) || this.#addRows(node, index)) return true;
    }
    return false;
  }

  /** Looks among the nodes that make a value for one that repeats along the batch what is the same for all samples. */
  #repeatIn(name: string): boolean {
    const node = this.#makers.get(name);
    if (node === undefined || this.#places.has(name)) return false;
    return (
      this.#isExpand(node) ||
      node.inputs.some((input) => input !== "" && this.#repeatIn(input)) ||
      node.inputs.some((_, index) => this.#plan.from > 1 && this.#addRows(node, index))
    );
  }

  #isExpand(node: Node): boolean {
    const { choices, from } = this.#plan;
    if (node.op !== "Expand" || from === 1 || choices.repeats.has(node.name)) return false;
    const { shape } = this.#typeOf(node.outputs[0] as string);
    const own = this.#typeOf(node.inputs[0] as string).shape;
    const lead = shape.length - own.length;
    const dim = shape.findIndex((size, at) => size === from && (own[at - lead] ?? 1) === 1);
    if (dim >= 0) choices.repeats.set(node.name, dim);
    return dim >= 0;
  }

  /** Gives an input of a node as many rows as there are samples, if the node can then be made. */
  #addRows(node: Node, index: number): boolean {
    const { choices, from } = this.#plan;
    const name = node.inputs[index] as string;
    if (name === "" || this.#places.has(name) || !this.#canHaveRows(name)) return false;
    const known = choices.rows.get(node.name) ?? new Map<number, number>();
    if (known.has(index)) return false;
    for (const [dim, size] of this.#typeOf(name).shape.entries()) {
      const rows = new Map([...known, [index, dim] as const]);
      if (size !== from || !this.#isMade(node, rows)) continue;
      choices.rows.set(node.name, rows);
      return true;
    }
    return false;
  }

  /** At a batch of one sample nothing tells an index of it from any other zero. */
  #canHaveRows(name: string): boolean {
    const isConstant = this.#plan.graph.constants.has(name);
    if (this.#plan.from === 1) return isFloat(this.#typeOf(name).dtype);
    return isConstant;
  }

  #isMade(node: Node, rows: ReadonlyMap<number, number>): boolean {
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
      for (const output of node.outputs) this.#places.delete(output);
    }
  }

  #make(node: Node, rows: ReadonlyMap<number, number>): void {
    const varying = node.inputs.some((name) => this.#places.has(name)) || rows.size > 0;
    const repeats = this.#plan.choices.repeats.get(node.name);
    const results =
      this.#special(node, repeats) ??
      this.#builder.append(
        node.op,
        this.#isTrying ? this.#fresh() : node.name,
        node.inputs.map((name, index) => this.#input(name, rows.get(index))),
        node.attributes,
        this.#isTrying ? node.outputs.map((name) => (name === "" ? "" : "*")) : node.outputs,
      );
    if (varying && WRITES.has(node.op) && this.#places.has(node.inputs[0] ?? "")) {
      const isWhole = [1, 2].every((at) => rows.has(at) || this.#places.has(node.inputs[at] ?? ""));
      if (!isWhole) fail("it writes at places that do not depend on the batch");
    }
    for (const [index, output] of node.outputs.entries()) {
      const value = results[index];
      if (output === "" || value === undefined) continue;
      this.values.set(output, value);
      if (!varying && repeats === undefined) continue;
      if (!this.#places.has(output)) this.#places.set(output, this.#placeOf(node, output, value));
    }
  }

  /** Where the batch lies in an output: in the dim that has another size than in the file. */
  #placeOf(node: Node, output: string, value: Value): Place {
    const before = this.#typeOf(output).shape;
    const { from } = this.#plan;
    const changed = before.flatMap((size, dim) => (size === value.shape[dim] ? [] : [dim]));
    const [dim, ...others] = changed;
    if (dim === undefined || others.length > 0 || before.length !== value.shape.length) {
      return fail(NO_PLACE);
    }
    const [first = ""] = node.inputs;
    const place = this.#places.get(first);
    if (place !== undefined && KEEPS_ORDER.has(node.op)) {
      const next = moved(this.#typeOf(first).shape, place, before, from);
      return next?.dim === dim ? next : fail(MERGES);
    }
    const factor = (before[dim] as number) / from;
    if (!Number.isInteger(factor) || value.shape[dim] !== factor * this.#to) return fail(NO_PLACE);
    if (factor === 1) return { dim, outer: 1, inner: 1 };
    for (const name of node.inputs) {
      const own = this.#places.get(name);
      if (own !== undefined && own.outer * own.inner === factor) return { ...own, dim };
    }
    return fail(MERGES);
  }

  /** Operators whose results have the shape that a constant says. */
  #special(node: Node, repeats: number | undefined): Value[] | undefined {
    const [name = "", target = ""] = node.inputs;
    const [output = ""] = node.outputs;
    const x = this.values.get(name);
    const place = this.#places.get(name);
    const own = x && this.#hook?.(node, x);
    if (own !== undefined) return [own];
    const after = this.#plan.graph.types.get(output)?.shape ?? [];
    if (x === undefined || (place === undefined && repeats === undefined)) return undefined;
    if (node.op !== "Reshape" && node.op !== "Expand") return undefined;
    if (!this.#plan.graph.constants.has(target)) fail("its shape is not known");
    const { from } = this.#plan;
    const next =
      place === undefined
        ? { dim: repeats as number, outer: 1, inner: 1 }
        : node.op === "Reshape"
          ? moved(this.#typeOf(name).shape, place, after, from)
          : { ...place, dim: place.dim + after.length - x.shape.length };
    if (next === undefined) return fail(MERGES);
    const shape = [...after];
    shape[next.dim] = next.outer * this.#to * next.inner;
    if (node.op === "Expand" && after[next.dim] !== next.outer * from * next.inner) fail(NO_PLACE);
    this.#places.set(output, next);
    const inputs = [x, this.#builder.ints(shape)];
    return this.#builder.append(node.op, node.name, inputs, node.attributes, node.outputs);
  }

  #input(name: string, rows: number | undefined): Value | undefined {
    if (name === "") return undefined;
    const tensor = this.#plan.graph.constants.get(name);
    const value = this.values.get(name) ?? this.#constant(name, tensor as Tensor);
    if (rows === undefined) return value;
    if (this.#plan.from === 1) {
      const shape = value.shape.map((size, dim) => (dim === rows ? this.#to : size));
      return this.#builder.one("Expand", [value, this.#builder.ints(shape)]);
    }
    const line = lineOf(tensor as Tensor, rows);
    return line === undefined
      ? fail("a constant has other elements for each sample")
      : this.#builder.constant(drawLine(line, rows, this.#to));
  }

  /** A name for a node that is only tried. */
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

  #typeOf(name: string) {
    return typeOf(this.#plan.graph, name);
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
