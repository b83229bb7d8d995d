/**
 * The activation functions of recurrent cells, by their names in ONNX, with the defaults of ONNX
 * Runtime.
 */
import {
  add,
  elu,
  hardSigmoid,
  leakyRelu,
  mul,
  relu,
  sigmoid,
  softplus,
  tanh,
} from "../../functional/index.ts";
import type { AttributeReader, InferContext, Value } from "../../graph/index.ts";

interface Known {
  /**
   * The defaults of the constants. `null`: the node must give the constant; absent: the function
   * has none.
   */
  readonly alpha?: number | null;
  readonly beta?: number | null;
  readonly apply: (x: Value, alpha: number, beta: number) => Value;
}

const KNOWN: Readonly<Record<string, Known>> = {
  Affine: { alpha: null, beta: null, apply: (x, alpha, beta) => add(mul(x, alpha), beta) },
  Elu: { alpha: 1, apply: (x, alpha) => elu(x, alpha) },
  HardSigmoid: {
    alpha: 0.2,
    beta: 0.5,
    apply: (x, alpha, beta) => hardSigmoid(x, { alpha, beta }),
  },
  LeakyRelu: { alpha: 0.01, apply: (x, alpha) => leakyRelu(x, alpha) },
  Relu: { apply: relu },
  ScaledTanh: {
    alpha: null,
    beta: null,
    apply: (x, alpha, beta) => mul(tanh(mul(x, beta)), alpha),
  },
  Sigmoid: { apply: sigmoid },
  Softplus: { apply: softplus },
  Softsign: { apply: (x) => x.builder.one("Softsign", [x]) },
  Tanh: { apply: tanh },
  ThresholdedRelu: {
    alpha: 1,
    apply: (x, alpha) => x.builder.one("ThresholdedRelu", [x], { alpha }),
  },
};

/**
 * A function of a cell with its constants. It is data, so that the reference interpreter can use it
 * too.
 */
export interface CellFunction {
  readonly name: string;
  readonly alpha: number;
  readonly beta: number;
}

/**
 * The functions of all directions, in order; alphas and betas are assigned to the functions that
 * have them.
 */
export function cellFunctions(
  attributes: AttributeReader,
  defaults: readonly string[],
  directions: number,
): CellFunction[] {
  const names = attributes.has("activations")
    ? attributes.strings("activations").map(named)
    : Array.from({ length: directions }, () => defaults).flat();
  const list = (name: string) => (attributes.has(name) ? [...attributes.numbers(name)] : []);
  const alphas = list("activation_alpha");
  const betas = list("activation_beta");
  return names.map((name) => {
    const { alpha, beta } = KNOWN[name] as Known;
    const take = (from: number[], otherwise: number | null | undefined): number =>
      (otherwise === undefined ? undefined : from.shift()) ?? otherwise ?? 0;
    return { name, alpha: take(alphas, alpha), beta: take(betas, beta) };
  });
}

/** Names are compared without regard to case, as in ONNX Runtime. */
function named(name: string): string {
  return Object.keys(KNOWN).find((own) => own.toLowerCase() === name.toLowerCase()) ?? name;
}

/** Refuses unknown functions, too few functions, and missing constants. */
export function checkActivations(context: InferContext, count: number): void {
  const { attributes } = context;
  if (!attributes.has("activations")) return;
  const names = attributes.strings("activations").map(named);
  if (names.length !== count) context.fail(`takes ${count} activations, got ${names.length}`);
  for (const [constant, attribute] of [
    ["alpha", "activation_alpha"],
    ["beta", "activation_beta"],
  ] as const) {
    let left = attributes.has(attribute) ? attributes.numbers(attribute).length : 0;
    for (const name of names) {
      const known = KNOWN[name] ?? context.fail(`the activation "${name}" is not known`);
      const otherwise = known[constant];
      if (otherwise === undefined) continue;
      if (--left < 0 && otherwise === null) context.fail(`${name} needs a value in ${attribute}`);
    }
  }
}

export function applyFunction({ name, alpha, beta }: CellFunction, x: Value): Value {
  return (KNOWN[name] as Known).apply(x, alpha, beta);
}
