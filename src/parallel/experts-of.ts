/**
 * The parameters of experts. They are found in the graph, not by name, so that models from files have
 * them, too: a parameter of three dims with a matrix for each expert, by which rows are multiplied in
 * one batched product; and parameters with a row for each expert, that such products meet next.
 */
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { type ComputeTask, forwardNodes, isPiece, type StepGraph, valueOf } from "../plan/index.ts";
import { valueOfInput } from "./placed.ts";

export interface Experts {
  /** The inputs of the pass that are parameters of experts, and how many experts these have. */
  readonly counts: ReadonlyMap<string, number>;
  /** These inputs, and the same in another type or with its matrices transposed. */
  readonly held: ReadonlySet<string>;
}

const PRODUCTS: ReadonlySet<string> = new Set(["MatMul", "com.microsoft::FusedMatMul"]);
const SAME: ReadonlySet<string> = new Set(["Cast", "Identity", "Transpose"]);

/** Experts are the first dim of their tensors, the only one that tells matrices apart. */
const DIMS = 3;

export function expertsOf(step: StepGraph, pass: ComputeTask, graph: Graph): Experts {
  const counts = new Map<string, number>();
  /** By value: the parameter that it is. */
  const held = new Map<string, string>();
  for (const name of graph.inputs) {
    const { role } = valueOf(step, valueOfInput(step, pass, name));
    if (role === "parameter" && isBank(graph, name)) held.set(name, name);
  }
  /** What experts make. */
  const made = new Map<string, number>();
  for (const node of forwardNodes(step, pass)) {
    const [output = ""] = node.outputs;
    const parameters = node.inputs.flatMap((name) => held.get(name) ?? []);
    const [count, ...others] = parameters.map((name) => typeOf(graph, name).shape[0] as number);
    if (count !== undefined && isSame(graph, node)) held.set(output, parameters[0] as string);
    const of = node.inputs.map((name) => made.get(name)).find((own) => own !== undefined);
    const isOfExperts = isBank(graph, output) && typeOf(graph, output).shape[0] === (of ?? count);
    const isProduct = PRODUCTS.has(node.op) && others.length === 0 && count !== undefined;
    if (!isOfExperts || !(isProduct || (of !== undefined && (count ?? of) === of))) continue;
    made.set(output, (of ?? count) as number);
    for (const name of parameters) counts.set(name, made.get(output) as number);
  }
  const names = [...held].flatMap(([name, parameter]) => (counts.has(parameter) ? [name] : []));
  return { counts, held: new Set(names) };
}

/** The parameters of experts, by the names that models give them. */
export function expertNames(step: StepGraph): ReadonlySet<string> {
  const [pass] = step.tasks.filter(isPiece);
  if (pass === undefined) return new Set();
  const { counts } = expertsOf(step, pass, step.graphs.get(pass.graph) as Graph);
  return new Set(
    [...counts.keys()].map((name) => valueOf(step, valueOfInput(step, pass, name)).of),
  );
}

function isBank(graph: Graph, name: string): boolean {
  const { shape } = typeOf(graph, name);
  return shape.length === DIMS && (shape[0] as number) > 1;
}

function isSame(graph: Graph, { op, inputs, outputs }: Node): boolean {
  const [from, to] = [inputs[0] as string, outputs[0] as string].map((own) => typeOf(graph, own));
  return SAME.has(op) && from?.shape[0] === to?.shape[0];
}
