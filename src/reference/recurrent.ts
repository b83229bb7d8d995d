/** LSTM, GRU and RNN as ONNX defines them: one sequence, one step and one gate after the other. */
import { type CellFunction, cellFunctions, type recurrent } from "../ops/recurrent/index.ts";
import type { Kernel, KernelContext } from "./kernel.ts";
import type { ReferenceTensor } from "./tensor.ts";

const scalarFunctions: Readonly<
  Record<string, (x: number, alpha: number, beta: number) => number>
> = {
  Affine: (x, alpha, beta) => alpha * x + beta,
  Elu: (x, alpha) => (x >= 0 ? x : alpha * Math.expm1(x)),
  HardSigmoid: (x, alpha, beta) => Math.max(0, Math.min(1, alpha * x + beta)),
  LeakyRelu: (x, alpha) => (x >= 0 ? x : alpha * x),
  Relu: (x) => Math.max(0, x),
  ScaledTanh: (x, alpha, beta) => alpha * Math.tanh(beta * x),
  Sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  Softplus: (x) => Math.log1p(Math.exp(x)),
  Softsign: (x) => x / (1 + Math.abs(x)),
  Tanh: Math.tanh,
  ThresholdedRelu: (x, alpha) => (x > alpha ? x : 0),
};

const apply = ({ name, alpha, beta }: CellFunction, x: number): number =>
  scalarFunctions[name]?.(x, alpha, beta) as number;

type Vector = readonly number[];

/** What a step of one sequence uses: its functions, with the bound applied, and its weights. */
interface Cell {
  readonly f: readonly ((sums: Vector) => number[])[];
  /** The function of LSTM's cell, to which ONNX Runtime does not apply the bound. */
  squash(cell: Vector): number[];
  /** Gate `gate` of x · Wᵀ + Wb. */
  input(gate: number, x: Vector): number[];
  /** Gate `gate` of h · Rᵀ + Rb. */
  recurrent(gate: number, h: Vector): number[];
  /** The peephole weights of the input, output and forget gate; zeros if there are none. */
  readonly peepholes: readonly Vector[];
  flag(name: string): boolean;
}

interface State {
  readonly h: Vector;
  readonly c: Vector;
}

type Step = (cell: Cell, x: Vector, state: State) => State;

const combine = (f: (...values: number[]) => number, ...vectors: readonly Vector[]): number[] =>
  (vectors[0] as Vector).map((_, i) => f(...vectors.map((vector) => vector[i] as number)));
const sum = (...vectors: readonly Vector[]) =>
  combine((...v) => v.reduce((a, b) => a + b), ...vectors);
const product = (a: Vector, b: Vector) => combine((x, y) => x * y, a, b);

const lstmStep: Step = (cell, x, { h, c }) => {
  const [gate, candidate] = cell.f as [Cell["f"][0], Cell["f"][0]];
  const sums = (index: number) => sum(cell.input(index, x), cell.recurrent(index, h));
  const [pi, po, pf] = cell.peepholes as [Vector, Vector, Vector];
  const i = gate(sum(sums(0), product(pi, c)));
  const f = cell.flag("input_forget")
    ? i.map((value) => 1 - value)
    : gate(sum(sums(2), product(pf, c)));
  const next = sum(product(f, c), product(i, candidate(sums(3))));
  const o = gate(sum(sums(1), product(po, next)));
  return { h: product(o, cell.squash(next)), c: next };
};

const gruStep: Step = (cell, x, { h, c }) => {
  const [gate, squash] = cell.f as [Cell["f"][0], Cell["f"][0]];
  const update = gate(sum(cell.input(0, x), cell.recurrent(0, h)));
  const reset = gate(sum(cell.input(1, x), cell.recurrent(1, h)));
  const ours = cell.flag("linear_before_reset")
    ? product(reset, cell.recurrent(2, h))
    : cell.recurrent(2, product(reset, h));
  const candidate = squash(sum(cell.input(2, x), ours));
  return { h: combine((z, n, old) => (1 - z) * n + z * old, update, candidate, h), c };
};

const rnnStep: Step = (cell, x, { h, c }) => ({
  h: (cell.f[0] as Cell["f"][0])(sum(cell.input(0, x), cell.recurrent(0, h))),
  c,
});

function cellOf(
  context: KernelContext,
  direction: number,
  gates: number,
  functions: readonly CellFunction[],
): Cell {
  const [w, r] = [context.input(1), context.input(2)];
  const hidden = r.shape[2] as number;
  const { attributes } = context;
  const bound = attributes.has("clip") ? attributes.number("clip") : 0;
  const held = (x: number) => (bound > 0 ? Math.max(-bound, Math.min(bound, x)) : x);
  const row = (tensor: ReferenceTensor | undefined, index: number, size: number): Vector =>
    tensor === undefined
      ? new Array<number>(size).fill(0)
      : Array.from(tensor.data.subarray(index * size, (index + 1) * size));
  const times = (weight: ReferenceTensor, first: number, vector: Vector, bias: Vector) =>
    Array.from({ length: hidden }, (_, i) =>
      row(weight, first + i, vector.length).reduce(
        (total, value, j) => total + value * (vector[j] as number),
        bias[i] as number,
      ),
    );
  const bias = (part: number, gate: number) =>
    row(context.inputs[3], (direction * 2 + part) * gates + gate, hidden);
  const first = (gate: number) => (direction * gates + gate) * hidden;
  return {
    f: functions.map((own) => (vector) => vector.map((x) => apply(own, held(x)))),
    squash: (vector) => vector.map((x) => apply(functions[2] as CellFunction, x)),
    input: (gate, x) => times(w, first(gate), x, bias(0, gate)),
    recurrent: (gate, h) => times(r, first(gate), h, bias(1, gate)),
    peepholes: [0, 1, 2].map((gate) => row(context.inputs[7], direction * 3 + gate, hidden)),
    flag: (name) => attributes.number(name) !== 0,
  };
}

function kernel(gates: number, defaults: readonly string[], step: Step): Kernel {
  return (context) => {
    const x = context.input(0);
    const [steps, batch, inputs] = x.shape as [number, number, number];
    const hidden = context.input(2).shape[2] as number;
    const way = context.attributes.string("direction");
    const directions = way === "bidirectional" ? 2 : 1;
    const y = new Float64Array(steps * directions * batch * hidden);
    const last = { h: new Float64Array(directions * batch * hidden), c: new Float64Array(0) };
    last.c = new Float64Array(last.h.length);
    const functions = cellFunctions(context.attributes, defaults, directions);
    const count = defaults.length;
    for (let direction = 0; direction < directions; direction++) {
      const own = functions.slice(direction * count, (direction + 1) * count);
      const cell = cellOf(context, direction, gates, own);
      const backwards = way === "reverse" || direction === 1;
      for (let b = 0; b < batch; b++) {
        const at = (direction * batch + b) * hidden;
        const begin = (index: number) =>
          Array.from({ length: hidden }, (_, i) => context.inputs[index]?.data[at + i] ?? 0);
        let state: State = { h: begin(5), c: begin(6) };
        const length = context.inputs[4]?.data[b] ?? steps;
        for (let s = 0; s < length; s++) {
          const t = backwards ? length - 1 - s : s;
          const from = (t * batch + b) * inputs;
          state = step(cell, Array.from(x.data.subarray(from, from + inputs)), state);
          y.set(state.h, (t * directions * batch + direction * batch + b) * hidden);
        }
        last.h.set(state.h, at);
        last.c.set(state.c, at);
      }
    }
    const { dtype } = x;
    const shape = [directions, batch, hidden];
    return [
      { dtype, shape: [steps, ...shape], data: y },
      { dtype, shape, data: last.h },
      { dtype, shape, data: last.c },
    ];
  };
}

export const recurrentKernels: Record<keyof typeof recurrent, Kernel> = {
  GRU: kernel(3, ["Sigmoid", "Tanh"], gruStep),
  LSTM: kernel(4, ["Sigmoid", "Tanh", "Tanh"], lstmStep),
  RNN: kernel(1, ["Tanh"], rnnStep),
};
