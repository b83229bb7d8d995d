/**
 * Muon: orthogonalized momentum for the matrices inside a network; AdamW for all other parameters.
 */
import { add, div, maximum, mul, reduceL2, sub, swapLast } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import {
  anything,
  checkOptions,
  choice,
  count,
  flag,
  type OptionKinds,
  positive,
  rate,
  triple,
} from "../options.ts";
import { type AdamOptions, adamwRule } from "./adam.ts";
import type { Rules, UpdateRule } from "./optimizer.ts";
import { COMMON_OPTIONS, type CommonOptions, checked, checkedCommon } from "./options.ts";
import { type ParameterSelector, selector } from "./select.ts";

export interface MuonOptions extends CommonOptions {
  readonly momentum?: number;
  readonly nesterov?: boolean;
  readonly nsSteps?: number;
  readonly nsCoefficients?: readonly [number, number, number];
  readonly eps?: number;
  /**
   * How the learning rate depends on the shape: `original` (Jordan): √max(1, rows/columns);
   * `match_rms_adamw` (Moonshot): 0.2·√max(rows, columns), so that AdamW's learning rates can be
   * used.
   */
  readonly adjust?: "original" | "match_rms_adamw";
  /**
   * The parameters that Muon updates; they must be matrices. Default: those whose name does not
   * indicate an embedding or a head.
   */
  readonly matrices?: ParameterSelector;
  /** The options of AdamW for all other parameters. */
  readonly adamw?: AdamOptions;
}

const INNER_MATRICES: ParameterSelector = { exclude: /emb|head|vocab|pos|wte|wpe/i };

const MUON_OPTIONS: OptionKinds<MuonOptions> = {
  ...COMMON_OPTIONS,
  momentum: rate.optional(),
  nesterov: flag.optional(),
  nsSteps: count.optional(),
  nsCoefficients: triple.optional(),
  eps: positive.optional(),
  adjust: choice("original", "match_rms_adamw").optional(),
  matrices: selector.optional(),
  adamw: anything.optional(),
};

/** Throws INVALID_OPTION. */
export function muonRules(options: MuonOptions): Rules {
  checkOptions("muon", options, MUON_OPTIONS);
  const selects: ParameterSelector = {
    ...(options.matrices ?? INNER_MATRICES),
    minimumRank: 2,
    maximumRank: 2,
  };
  return [
    { rule: muonRule(options), selects },
    { rule: adamwRule(options.adamw ?? {}), selects: {} },
  ];
}

function muonRule(options: MuonOptions): UpdateRule {
  const momentum = checked("muon", "momentum", options.momentum ?? 0.95, { from: 0, below: 1 });
  const steps = checked("muon", "nsSteps", options.nsSteps ?? 5, { from: 1, below: 100 });
  const coefficients = options.nsCoefficients ?? [3.4445, -4.775, 2.0315];
  const eps = options.eps ?? 1e-7;
  const nesterov = options.nesterov ?? true;
  const adjust = options.adjust ?? "original";
  return {
    name: "muon",
    granularity: "tensor",
    ...checkedCommon("muon", options, { learningRate: 1e-3, weightDecay: 0.1 }),
    slots: [{ name: "momentum_buffer" }],
    scalars: ({ learningRate, gradientScale, weightDecay }) => ({
      learningRate,
      fresh: gradientScale * (1 - momentum),
      keep: 1 - learningRate * weightDecay,
    }),
    update: (context) => {
      const { parameter, decays } = context;
      const fresh = mul(context.gradient, context.scalar("fresh"));
      const buffer = add(mul(context.slot("momentum_buffer"), momentum), fresh);
      // Nesterov's step is `(1 - μ)·gradient + μ·buffer`: the gradient, moved towards the buffer.
      const direction = nesterov ? add(fresh, mul(buffer, momentum)) : buffer;
      const orthogonal = newtonSchulz(direction, steps, coefficients, eps);
      const stepSize = mul(context.scalar("learningRate"), shapeFactor(parameter, adjust));
      const base = decays ? mul(parameter, context.scalar("keep")) : parameter;
      return {
        parameter: sub(base, mul(orthogonal, stepSize)),
        slots: { momentum_buffer: buffer },
      };
    },
  };
}

function shapeFactor(parameter: Value, adjust: "original" | "match_rms_adamw"): number {
  const [rows, columns] = parameter.shape as readonly [number, number];
  return adjust === "original"
    ? Math.sqrt(Math.max(1, rows / columns))
    : 0.2 * Math.sqrt(Math.max(rows, columns));
}

/**
 * Approximates the nearest half-orthogonal matrix by repeatedly applying an odd polynomial to the
 * singular values.
 */
function newtonSchulz(
  matrix: Value,
  steps: number,
  [a, b, c]: readonly [number, number, number],
  eps: number,
): Value {
  const [rows, columns] = matrix.shape as readonly [number, number];
  const tall = rows > columns;
  const wide = tall ? swapLast(matrix) : matrix;
  const matmul = (x: Value, y: Value) => x.builder.one("MatMul", [x, y]);
  let x = div(wide, maximum(reduceL2(wide, { keepdims: false }), eps));
  for (let step = 0; step < steps; step++) {
    const gram = matmul(x, swapLast(x));
    const polynomial = add(mul(gram, b), mul(matmul(gram, gram), c));
    x = add(mul(x, a), matmul(polynomial, x));
  }
  return tall ? swapLast(x) : x;
}
