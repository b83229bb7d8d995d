/**
 * Reverse-mode differentiation, graph to graph (Linnainmaa 1970; Griewank & Walther, "Evaluating
 * Derivatives"). The gradient is ordinary nodes beside the forward ones, so it can be
 * differentiated again.
 */
import { assert, LockstepError } from "../errors.ts";
import { add, zerosLike } from "../functional/index.ts";
import {
  type GradientContext,
  type GraphBuilder,
  type Node,
  type OperatorDefinition,
  readAttributes,
  type Value,
} from "../graph/index.ts";
import { operatorTable } from "../ops/index.ts";
import { isFloat, sameShape, toNumbers } from "../tensor/index.ts";

/**
 * The values that gradient rules computed in place of outputs of nodes, by the names of those
 * outputs.
 */
export type Replacements = Map<string, Value>;

/**
 * Appends to the builder the gradient of Σ seed·output for the values in `wrt`.
 * @param seeds one value of the output's type for each output. Default: ones (a scalar loss).
 * @param replaced receives, by name, the forward values that the gradient computes in another way,
 * with the values that equal them.
 * @throws NO_GRADIENT naming the operator and node if the path to `wrt` leads through an operator
 * without a rule.
 */
export function backward(
  outputs: readonly Value[],
  wrt: readonly Value[],
  seeds?: readonly Value[],
  replaced: Replacements = new Map(),
): (Value | undefined)[] {
  const builder = outputs[0]?.builder;
  assert(builder !== undefined, "backward needs at least one output");
  return backwardThrough([...builder.nodes], { outputs, wrt, seeds, replaced });
}

interface Request {
  readonly outputs: readonly Value[];
  readonly wrt: readonly Value[];
  readonly seeds: readonly Value[] | undefined;
  readonly replaced: Replacements;
}

/** Does the same as `backward` for `nodes` only. */
function backwardThrough(nodes: readonly Node[], request: Request): (Value | undefined)[] {
  const { outputs, wrt, seeds, replaced } = request;
  const { builder } = outputs[0] as Value;
  const active = reachable(nodes, wrt);
  const gradients = new GradientSums();
  for (const [index, output] of outputs.entries()) {
    const seed = seeds?.[index] ?? onesFor(output);
    assert(sameShape(seed.shape, output.shape), "a seed has the shape of its output");
    gradients.add(output.name, seed);
  }
  for (const node of nodes.toReversed()) {
    const isActive = node.inputs.some((input) => active.has(input));
    if (!isActive || !node.outputs.some((output) => gradients.has(output))) continue;
    builder.within(gradientScope(node), () =>
      propagate(node, { builder, active, gradients, replaced }),
    );
  }
  return wrt.map((value) => gradients.total(value.name));
}

/** The names of all values that depend on one of `sources`. */
function reachable(nodes: readonly Node[], sources: readonly Value[]): ReadonlySet<string> {
  const active = new Set(sources.map((value) => value.name));
  for (const node of nodes) {
    if (!node.inputs.some((input) => active.has(input))) continue;
    for (const output of node.outputs) if (output !== "") active.add(output);
  }
  return active;
}

/**
 * The contributions to a value's gradient, added in the order in which they were computed, so that
 * the bits are always the same.
 */
class GradientSums {
  readonly #parts = new Map<string, Value[]>();

  add(name: string, gradient: Value): void {
    const parts = this.#parts.get(name);
    if (parts === undefined) this.#parts.set(name, [gradient]);
    else parts.push(gradient);
  }

  has(name: string): boolean {
    return this.#parts.has(name);
  }

  total(name: string): Value | undefined {
    const parts = this.#parts.get(name);
    if (parts === undefined) return undefined;
    const sum = parts.reduce((left, right) => add(left, right));
    this.#parts.set(name, [sum]);
    return sum;
  }
}

/** The data of one backward pass. */
interface Pass {
  readonly builder: GraphBuilder;
  readonly active: ReadonlySet<string>;
  readonly gradients: GradientSums;
  readonly replaced: Replacements;
}

function propagate(node: Node, pass: Pass): void {
  const { builder, active, gradients } = pass;
  const definition = operatorTable.find(node.op);
  assert(definition !== undefined, `${node.op} was known when the node was added`);
  const rule = definition.gradient;
  if ("zero" in rule) return;
  if ("missing" in rule) {
    throw new LockstepError(
      "NO_GRADIENT",
      `Node "${node.name}": the operator ${node.op} has no gradient.`,
      { hint: rule.missing, fields: { operator: node.op, node: node.name } },
    );
  }
  const results = rule(gradientContext(node, definition, pass));
  for (const [index, gradient] of results.entries()) {
    const name = node.inputs[index];
    if (gradient === undefined || name === undefined || !active.has(name)) continue;
    const value = builder.value(name);
    if (!isFloat(value.dtype)) continue;
    assert(
      sameShape(gradient.shape, value.shape) && gradient.dtype === value.dtype,
      `${node.op} gives input ${index} of type ${value.dtype}[${value.shape}] a gradient of type ` +
        `${gradient.dtype}[${gradient.shape}]`,
    );
    gradients.add(name, gradient);
  }
}

function gradientContext(node: Node, definition: OperatorDefinition, pass: Pass): GradientContext {
  const { builder, active, gradients, replaced } = pass;
  const before = builder.nodes.length;
  const valueOf = (name: string) => (name === "" ? undefined : builder.value(name));
  const inputs = node.inputs.map(valueOf);
  const constant = (index: number) => {
    const value = inputs[index];
    return value && builder.constantOf(value);
  };
  return {
    op: node.op,
    builder,
    attributes: readAttributes(definition, node.attributes, node.name),
    inputs,
    outputs: node.outputs.map(valueOf),
    gradients: node.outputs.map((name) => gradients.total(name)),
    needs(index) {
      const value = inputs[index];
      return value !== undefined && active.has(value.name) && isFloat(value.dtype);
    },
    input(index) {
      const value = inputs[index];
      assert(value !== undefined, `${node.op} has no input ${index}`);
      return value;
    },
    output: (index) => builder.outputOf(node, index),
    gradient(index) {
      const name = node.outputs[index] ?? "";
      return gradients.total(name) ?? zerosLike(builder.outputOf(node, index));
    },
    constant,
    constantNumbers(index) {
      const tensor = constant(index);
      assert(tensor !== undefined, `${node.op}: input ${index} is a constant`);
      return toNumbers(tensor);
    },
    backward: (outputs, wrt, seeds) =>
      backwardThrough(builder.nodes.slice(before), { outputs, wrt, seeds, replaced }),
    replace(index, value) {
      const name = node.outputs[index] ?? "";
      if (name !== "") replaced.set(name, value);
    },
  };
}

function onesFor(output: Value): Value {
  assert(output.shape.length === 0, "without seeds, outputs must be scalars");
  return output.builder.scalar(output.dtype, 1);
}

/** Gradient nodes are named after the layer that they belong to: `gradient/blocks.3.attention`. */
function gradientScope(node: Node): string {
  const layer = node.name.includes("/") ? node.name.slice(0, node.name.lastIndexOf("/")) : "";
  const scope = layer.startsWith("gradient") ? layer : `gradient/${layer}`;
  return scope.endsWith("/") ? scope.slice(0, -1) : scope;
}
