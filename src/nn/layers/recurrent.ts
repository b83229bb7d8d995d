/** Recurrent layers: LSTM, GRU and the plain RNN, in one or both directions, stacked. */
import { reshape, slice, transpose } from "../../functional/index.ts";
import type { AttributeInputs, Value } from "../../graph/index.ts";
import { anything, choice, finite, flag, group, type OptionKinds, rate } from "../../options.ts";
import { formatShape } from "../../tensor/index.ts";
import { fanIn } from "../initializers.ts";
import type { Initializer } from "../model.ts";
import { checkLayer, initial } from "../options.ts";
import type { Scope } from "../scope.ts";
import { dropout } from "./dropout.ts";

export interface RecurrentOptions {
  /** The size of the state of one direction. */
  readonly hidden: number;
  /** The number of stacked layers. Default: 1. */
  readonly layers?: number;
  /**
   * Whether a second pass goes from the end to the start; its states follow those of the first.
   * Default: false.
   */
  readonly bidirectional?: boolean;
  /** The dropout rate between layers. Default: 0. */
  readonly dropout?: number;
  /** Default: true. */
  readonly bias?: boolean;
  /**
   * int32 (batch): the number of steps of each sequence. Outputs after them are 0, the last states
   * are those of the last of these steps, and the second direction starts there. Default: all
   * steps.
   */
  readonly lengths?: Value;
  /** The initializer of all weights and biases. Default: uniform within ±1/√hidden. */
  readonly initializer?: Initializer;
}

/**
 * States are (layers · directions, batch, hidden), as PyTorch orders them: by layer, then by
 * direction.
 */
export interface LstmOptions extends RecurrentOptions {
  /** The initial states. Default: zeros. */
  readonly initial?: { readonly h: Value; readonly c: Value };
}

export interface GruOptions extends RecurrentOptions {
  /** The initial state. Default: zeros. */
  readonly initial?: Value;
}

export interface RnnOptions extends GruOptions {
  /** Default: `tanh`. */
  readonly activation?: "tanh" | "relu";
}

/** The schemas of the options of recurrent layers. */
const RECURRENT_OPTIONS: OptionKinds<RecurrentOptions> = {
  hidden: finite,
  layers: finite.optional(),
  bidirectional: flag.optional(),
  dropout: rate.optional(),
  bias: flag.optional(),
  lengths: anything.optional(),
  initializer: initial,
};
const LSTM_OPTIONS: OptionKinds<LstmOptions> = {
  ...RECURRENT_OPTIONS,
  initial: group({ h: anything, c: anything }).optional(),
};
const GRU_OPTIONS: OptionKinds<GruOptions> = {
  ...RECURRENT_OPTIONS,
  initial: anything.optional(),
};
const RNN_OPTIONS: OptionKinds<RnnOptions> = {
  ...GRU_OPTIONS,
  activation: choice("tanh", "relu").optional(),
};

export interface RecurrentResult {
  /** (batch, steps, directions · hidden): the states of the last layer. */
  readonly y: Value;
  /** (directions, batch, hidden): the last layer's state after the last step. */
  readonly h: Value;
}

/**
 * Long short-term memory (Hochreiter & Schmidhuber 1997) over `x` (batch, steps, width). Parameters
 * of layer `i`: `i.input` [directions, 4 · hidden, width], `i.recurrent` [directions, 4 · hidden,
 * hidden], `i.bias` [directions, 8 · hidden], in ONNX's order: input, output, forget gate,
 * candidate. `c` is the cell after the last step, in the shape of `h`.
 */
export function lstm(
  scope: Scope,
  x: Value,
  options: LstmOptions,
): RecurrentResult & { readonly c: Value } {
  checkLayer(scope, "lstm", options, LSTM_OPTIONS);
  const states = options.initial && [options.initial.h, options.initial.c];
  const { y, last } = stack(scope, x, options, { op: "LSTM", gates: 4, states });
  return { y, h: last[0] as Value, c: last[1] as Value };
}

/**
 * Gated recurrent unit (Cho et al. 2014) in PyTorch's form: the reset gate is applied to the
 * product. The gates are update, reset, candidate; everything else is as for `lstm`.
 */
export function gru(scope: Scope, x: Value, options: GruOptions): RecurrentResult {
  checkLayer(scope, "gru", options, GRU_OPTIONS);
  const states = options.initial && [options.initial];
  const attributes = { linear_before_reset: 1 };
  const { y, last } = stack(scope, x, options, { op: "GRU", gates: 3, states, attributes });
  return { y, h: last[0] as Value };
}

/** h = tanh(x · Wᵀ + h · Rᵀ + biases) (Elman 1990). Everything else is as for `lstm`. */
export function rnn(scope: Scope, x: Value, options: RnnOptions): RecurrentResult {
  checkLayer(scope, "rnn", options, RNN_OPTIONS);
  const states = options.initial && [options.initial];
  const name = options.activation === "relu" ? "Relu" : "Tanh";
  const activations = options.bidirectional === true ? [name, name] : [name];
  const kind: Kind = { op: "RNN", gates: 1, states, attributes: { activations } };
  const { y, last } = stack(scope, x, options, kind);
  return { y, h: last[0] as Value };
}

interface Kind {
  readonly op: "LSTM" | "GRU" | "RNN";
  readonly gates: number;
  readonly states: readonly Value[] | undefined;
  readonly attributes?: AttributeInputs;
}

function stack(
  scope: Scope,
  x: Value,
  options: RecurrentOptions,
  kind: Kind,
): { y: Value; last: readonly Value[] } {
  const { layers = 1 } = options;
  checkShapes(scope, x, options, kind);
  let y = scope.within(() => turned(x));
  let last: readonly Value[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const own = scope.child(layer);
    // Dropout is applied between layers only. The leading dim of its input must be the batch.
    if (layer > 0 && (options.dropout ?? 0) > 0) {
      const dropped = dropout(own, turned(y), options.dropout ?? 0);
      y = own.within(() => turned(dropped));
    }
    [y, last] = oneLayer(own, y, options, kind, layer);
  }
  return { y: scope.within(() => turned(y)), last };
}

const turned = (x: Value): Value => transpose(x, [1, 0, 2]);

/** (steps, batch, width) → (steps, batch, directions · hidden), and the last states. */
function oneLayer(
  scope: Scope,
  x: Value,
  options: RecurrentOptions,
  kind: Kind,
  layer: number,
): [Value, readonly Value[]] {
  const { hidden, bias = true, initializer = fanIn(hidden) } = options;
  const directions = options.bidirectional === true ? 2 : 1;
  const [steps, batch, width] = x.shape as [number, number, number];
  const rows = kind.gates * hidden;
  const w = scope.parameter("input", [directions, rows, width], initializer);
  const r = scope.parameter("recurrent", [directions, rows, hidden], initializer);
  const b = bias ? scope.parameter("bias", [directions, 2 * rows], initializer) : undefined;
  return scope.within(() => {
    const begun = (kind.states ?? []).map((state) => part(state, layer * directions, directions));
    const inputs = [x, w, r, b, options.lengths, ...begun];
    while (inputs.at(-1) === undefined) inputs.pop();
    const [y, ...last] = scope.builder.emit(
      kind.op,
      inputs,
      {
        hidden_size: hidden,
        direction: directions === 2 ? "bidirectional" : "forward",
        ...kind.attributes,
      },
      { outputs: kind.op === "LSTM" ? 3 : 2 },
    ) as [Value, ...Value[]];
    const together = transpose(y, [0, 2, 1, 3]);
    return [reshape(together, [steps, batch, directions * hidden]), last];
  });
}

function part(states: Value, start: number, count: number): Value {
  if (states.shape[0] === count) return states;
  return slice(states, [{ axis: 0, start, end: start + count }]);
}

function checkShapes(scope: Scope, x: Value, options: RecurrentOptions, kind: Kind): void {
  const { hidden, layers = 1, bidirectional = false } = options;
  if (x.shape.length !== 3) {
    scope.fail(`expected an input (batch, steps, width), got ${formatShape(x.shape)}`);
  }
  for (const [name, value] of Object.entries({ hidden, layers })) {
    if (!Number.isInteger(value) || value < 1) {
      scope.fail(`${name} of ${value}`, "Set it to a whole number above 0.");
    }
  }
  const wanted = [layers * (bidirectional ? 2 : 1), x.shape[0], hidden];
  for (const state of kind.states ?? []) {
    if (state.shape.length !== 3 || state.shape.some((size, dim) => size !== wanted[dim])) {
      scope.fail(
        `initial states of the shape ${formatShape(state.shape)}`,
        `They are (layers · directions, batch, hidden): [${wanted.join(", ")}].`,
      );
    }
  }
}
