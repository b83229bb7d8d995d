/**
 * A plain, slow interpreter of graphs. Engines are compared with it, and it evaluates small
 * constants when a model is imported. It is the one place, besides tests, with loops over elements.
 */
import { assert, LockstepError } from "../errors.ts";
import { type Graph, type Node, readAttributes, typeOf } from "../graph/index.ts";
import { type OperatorName, operators, operatorTable } from "../ops/index.ts";
import type { Tensor, TensorType } from "../tensor/index.ts";
import { collectiveKernels } from "./collective-kernels.ts";
import { convolutionKernels } from "./convolution.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { indexingKernels } from "./indexing.ts";
import type { Kernel } from "./kernel.ts";
import { layoutKernels } from "./layout.ts";
import { linearKernels } from "./linear.ts";
import { normalizationKernels } from "./normalization.ts";
import { randomKernels } from "./random.ts";
import { recurrentKernels } from "./recurrent.ts";
import { reduceKernels } from "./reduce.ts";
import { samplingKernels } from "./sampling.ts";
import { fromTensor, type ReferenceTensor, round, toTensor } from "./tensor.ts";

/** The kernels of all operators. The type names every operator, so none can be missing. */
const kernels: Record<OperatorName, Kernel> = {
  ...collectiveKernels,
  ...convolutionKernels,
  ...elementwiseKernels,
  ...indexingKernels,
  ...layoutKernels,
  ...linearKernels,
  ...normalizationKernels,
  ...randomKernels,
  ...recurrentKernels,
  ...reduceKernels,
  ...samplingKernels,
};

/** Computes one node from its inputs; `types` are the inferred types of its outputs. */
export function evaluateNode(...given: Parameters<typeof computeNode>): readonly ReferenceTensor[] {
  return computeNode(...given).map(round);
}

/** Computes one node like `evaluateNode`, but does not round the results to their element types. */
export function computeNode(
  node: Pick<Node, "op" | "name" | "attributes">,
  inputs: readonly (ReferenceTensor | undefined)[],
  types: readonly TensorType[],
): readonly ReferenceTensor[] {
  const definition = operatorTable.find(node.op);
  if (definition === undefined || !(node.op in operators)) {
    throw new LockstepError("UNKNOWN_OPERATOR", `${node.name}: unknown operator "${node.op}".`);
  }
  return kernels[node.op as OperatorName]({
    op: node.op,
    inputs,
    attributes: readAttributes(definition, node.attributes, node.name),
    outputs: types,
    input(index) {
      const input = inputs[index];
      assert(input !== undefined, `${node.name}: input ${index} is missing`);
      return input;
    },
    output(index) {
      const type = types[index];
      assert(type !== undefined, `${node.name}: output ${index} was not asked for`);
      return type;
    },
  });
}

/** Runs a whole graph. Returns its outputs by name. */
export function interpret(
  graph: Graph,
  inputs: Readonly<Record<string, Tensor>>,
): Record<string, Tensor> {
  const interpreter = new Interpreter(graph, inputs);
  for (const node of graph.nodes) interpreter.run(node);
  return interpreter.outputs();
}

/** A graph that is run node by node. */
export class Interpreter {
  readonly #graph: Graph;
  readonly #values = new Map<string, ReferenceTensor>();

  constructor(graph: Graph, inputs: Readonly<Record<string, Tensor>>) {
    this.#graph = graph;
    for (const [name, tensor] of graph.constants) this.#values.set(name, fromTensor(tensor));
    for (const name of graph.inputs) {
      const tensor = inputs[name];
      assert(tensor !== undefined, `input "${name}" is missing`);
      this.#values.set(name, fromTensor(tensor));
    }
  }

  value(name: string): ReferenceTensor {
    const value = this.#values.get(name);
    assert(value !== undefined, `"${name}" is computed`);
    return value;
  }

  run(node: Node): void {
    const inputs = node.inputs.map((name) => this.#values.get(name));
    const types = node.outputs.map(
      (name): TensorType =>
        name === "" ? { dtype: "float32", shape: [] } : typeOf(this.#graph, name),
    );
    this.set(node, evaluateNode(node, inputs, types));
  }

  /** States the outputs of a node. */
  set({ outputs }: Node, results: readonly ReferenceTensor[]): void {
    for (const [index, name] of outputs.entries()) {
      if (name !== "") this.#values.set(name, results[index] as ReferenceTensor);
    }
  }

  outputs(): Record<string, Tensor> {
    return Object.fromEntries(
      this.#graph.outputs.map((name) => [name, toTensor(this.value(name))]),
    );
  }
}
