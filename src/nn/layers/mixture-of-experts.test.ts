/** The mixture of experts against PyTorch's numbers, a plain loop over tokens, and formulas. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  checkModelGradients,
  drawWeights,
  lossAndGradients,
  type Tensors,
} from "../../../test/support/model.ts";
import { randomNumbers } from "../../../test/support/random.ts";
import { mul, reduceSum } from "../../functional/index.ts";
import { interpret } from "../../reference/index.ts";
import {
  elementCount,
  type Shape,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../../tensor/index.ts";
import { defineModel } from "../define.ts";
import type { Mode, Model, ModelDefinition } from "../model.ts";
import { type MixtureOfExpertsOptions, mixtureOfExperts } from "./mixture-of-experts.ts";

/** The layer alone: x (batch, …dims), and the loss Σ y · target beside those of the router. */
function layer(dims: Shape, options: MixtureOfExpertsOptions): ModelDefinition {
  return defineModel("one_layer", (m) => {
    const x = m.input("x", [m.batch, ...dims]);
    const target = m.input("target", [m.batch, ...dims]);
    const y = mixtureOfExperts(m.child("moe"), x, options);
    return { loss: reduceSum(mul(y, target), { keepdims: false }), y };
  });
}

const build = (definition: ModelDefinition, batch: number, mode: Mode = "train"): Model =>
  definition.build({ batch, mode, dtype: "float64" });

function numbersOf(model: Model, inputs: Tensors, name: string): number[] {
  return toNumbers(interpret(model.graph, inputs)[name] as Tensor);
}

function near(got: readonly number[], expected: readonly number[], what: string): void {
  assert.equal(got.length, expected.length, what);
  const worst = Math.max(...got.map((value, at) => Math.abs(value - (expected[at] as number))));
  assert.ok(worst < 1e-9, `${what}: ${worst} from what was expected`);
}

/** sin(1.7 · i + seed) */
function waves(shape: Shape, seed: number): Tensor {
  const numbers = Array.from({ length: elementCount(shape) }, (_, i) => Math.sin(1.7 * i + seed));
  return tensorFrom("float64", shape, numbers);
}

// From PyTorch 2, in float64: logits = x @ router; p = softmax(logits); values, choices =
// p.topk(2); a loop over samples, tokens and choices that counts the tokens of each expert within
// the sample and skips those beyond the capacity; loss = (y * target).sum() + 0.1 * balance + 0.05
// * logsumexp(logits).square().mean(). Each tensor is waves(shape, seed): parameters in their order
// with seeds 1, 2, …, x with 0.5, target with 9. Of gradients, the sum of squares.
const CASES = [
  {
    options: { capacity: 0.75, activation: "swiglu" },
    loss: -7.327425045832,
    y: [0.151501617091, 0.784791759972, -0.353733811973, -0.727803693375],
    squares: [
      2.984793660427, 0.852629576368, 0.540271372346, 1.049077733072, 0.705561291807,
      2.808201439111, 12.923803575895,
    ],
    measures: { expert_load: 1.3125, dropped_choices: 0.25 },
  },
  {
    options: { renormalize: false, balanceOver: "batch" },
    loss: 1.743949571624,
    y: [-0.719058240292, -0.047171765568, 0.731213884851, 0.091003851483],
    squares: [3.597646680008, 11.850750480516, 9.601587335128, 1.79782571505, 12.600069886265],
    measures: { expert_load: 1.3125 },
  },
  {
    options: { capacity: 0.75, balanceOver: "batch" },
    loss: 3.13552255177,
    y: [-0.768046302997, -0.05038548774, 0.781030088372, 0.097781160661],
    squares: [2.204013723733, 9.378376177557, 7.51925993435, 1.850125398659, 12.923803575895],
    measures: { expert_load: 1.3125, dropped_choices: 0.25 },
  },
] as const;

for (const { options, loss, y, squares, measures } of CASES) {
  test(`PyTorch's numbers with ${JSON.stringify(options)}`, () => {
    const sizes = { experts: 3, topK: 2, hidden: 2, balance: 0.1, zLoss: 0.05 };
    const model = build(layer([4, 3], { ...sizes, ...options }), 2);
    const weights = model.parameters.map(({ name, type }, at) => {
      return [name, waves(type.shape, at + 1)] as const;
    });
    const shape = [2, 4, 3];
    const fields = { x: waves(shape, 0.5), target: waves(shape, 9) };
    const inputs = { ...Object.fromEntries(weights), ...fields };
    near(numbersOf(model, inputs, "y").slice(0, 4), y, "y");
    const found = lossAndGradients(model, inputs);
    near([found.loss], [loss], "loss");
    const own = model.parameters.map(({ name }) =>
      toNumbers(found.gradients[name] as Tensor).reduce((sum, value) => sum + value * value, 0),
    );
    near(own, squares, "gradients");
    for (const [name, value] of Object.entries(measures)) {
      near(numbersOf(model, inputs, name), [value], name);
    }
  });
}

interface Witness {
  readonly y: number[];
  /** The pairs [sample, token, expert] that were beyond the capacity. */
  readonly dropped: [number, number, number][];
}

/** What the layer does, token by token, with relu. */
function witness(inputs: Tensors, experts: number, topK: number, capacity: number): Witness {
  const of = (name: string) => {
    const tensor = inputs[name] as Tensor;
    const [numbers, { shape }] = [toNumbers(tensor), tensor];
    return (...at: number[]) => {
      const place = at.reduce((sum, index, dim) => sum * (shape[dim] as number) + index, 0);
      return numbers[place] as number;
    };
  };
  const [batch, length, width] = (inputs["x"] as Tensor).shape as [number, number, number];
  const hidden = (inputs["moe.experts.up.bias"] as Tensor).shape[2] as number;
  const [x, router] = [of("x"), of("moe.router.weight")];
  const [up, upBias] = [of("moe.experts.up.weight"), of("moe.experts.up.bias")];
  const [down, downBias] = [of("moe.experts.down.weight"), of("moe.experts.down.bias")];
  const times = (count: number) => Array.from({ length: count }, (_, index) => index);
  const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
  const found: Witness = { y: [], dropped: [] };
  for (const b of times(batch)) {
    const used = new Array<number>(experts).fill(0);
    for (const l of times(length)) {
      const scores = times(experts).map((e) =>
        Math.exp(sum(times(width).map((w) => x(b, l, w) * router(w, e)))),
      );
      const score = (e: number) => scores[e] as number;
      const chosen = times(experts)
        .sort((a, c) => score(c) - score(a))
        .slice(0, topK);
      const row = new Array<number>(width).fill(0);
      for (const e of chosen) {
        used[e] = (used[e] as number) + 1;
        if (used[e] > capacity) {
          found.dropped.push([b, l, e]);
          continue;
        }
        const weight = score(e) / sum(chosen.map(score));
        const inner = times(hidden).map((h) =>
          Math.max(0, upBias(e, 0, h) + sum(times(width).map((w) => x(b, l, w) * up(e, w, h)))),
        );
        for (const w of times(width)) {
          const made = sum(inner.map((value, h) => value * down(e, h, w))) + downBias(e, 0, w);
          row[w] = (row[w] as number) + weight * made;
        }
      }
      found.y.push(...row);
    }
  }
  return found;
}

const WIDE = { experts: 5, topK: 2, hidden: 6, activation: "relu" } as const;
const SHAPE = [3, 7, 4];

function drawn(model: Model): Tensors {
  const fields = ["x", "target"].map((name, at) => {
    return [name, tensorFrom("float64", SHAPE, randomNumbers(40 + at, 84))] as const;
  });
  return { ...drawWeights(model), ...Object.fromEntries(fields) };
}

test("a loop over tokens gives the same numbers, with any capacity and without", () => {
  for (const capacity of [undefined, 0.4, 1, 1.25, 2.5]) {
    const options = capacity === undefined ? WIDE : { ...WIDE, capacity };
    const model = build(layer([7, 4], options), 3);
    const inputs = drawn(model);
    const most = capacity === undefined ? 7 : Math.ceil((capacity * 2 * 7) / 5);
    const { y, dropped } = witness(inputs, 5, 2, most);
    near(numbersOf(model, inputs, "y"), y, `y with capacity ${capacity}`);
    if (capacity === undefined) continue;
    assert.equal(dropped.length > 0, capacity <= 1, `${capacity} drops ${dropped.length}`);
    near(numbersOf(model, inputs, "dropped_choices"), [dropped.length / 42], "dropped choices");
  }
});

test("with room for all tokens, the dispatched form has the gradients of the dense one", () => {
  const [dense, dispatched] = [WIDE, { ...WIDE, capacity: 2.5 }].map((own) =>
    build(layer([7, 4], own), 3),
  ) as [Model, Model];
  const inputs = drawn(dense);
  const [one, other] = [lossAndGradients(dense, inputs), lossAndGradients(dispatched, inputs)];
  for (const [name, tensor] of Object.entries(one.gradients)) {
    near(toNumbers(other.gradients[name] as Tensor), toNumbers(tensor), name);
  }
});

test("each expert serves the first tokens of a sample that choose it, and drops the later ones", () => {
  const options = { experts: 2, topK: 1, hidden: 1, activation: "relu", capacity: 0.5 } as const;
  const model = build(layer([8, 1], options), 2);
  const one = (shape: Shape, numbers: number[]) => tensorFrom("float64", shape, numbers);
  // Positive tokens choose expert 0, which doubles them; negative ones expert 1, which is 3 · |x|.
  const inputs = {
    "moe.router.weight": one([1, 2], [50, -50]),
    "moe.experts.up.weight": one([2, 1, 1], [2, -3]),
    "moe.experts.up.bias": one([2, 1, 1], [0, 0]),
    "moe.experts.down.weight": one([2, 1, 1], [1, 1]),
    "moe.experts.down.bias": one([2, 1, 1], [0, 0]),
    x: one([2, 8, 1], [1, 2, -1, 3, 4, -2, -3, 5, -1, -1, -1, -1, -1, -1, -1, 1]),
    target: waves([2, 8, 1], 0),
  };
  near(
    numbersOf(model, inputs, "y"),
    [2, 4, 3, 0, 0, 6, 0, 0, 3, 3, 0, 0, 0, 0, 0, 2],
    "two tokens for each expert",
  );
  near(numbersOf(model, inputs, "dropped_choices"), [9 / 16], "dropped choices");
  near(numbersOf(model, inputs, "expert_load"), [(2 * 10) / 16], "load");
});

test("what a capacity drops depends neither on later tokens nor on other samples", () => {
  const model = build(layer([7, 4], { ...WIDE, capacity: 0.5 }), 3);
  const inputs = drawn(model);
  const before = numbersOf(model, inputs, "y");
  const x = toNumbers(inputs["x"] as Tensor);
  const changed = x.map((value, at) => (at % 28 >= 16 || at >= 56 ? -value : value));
  const after = numbersOf(model, { ...inputs, x: tensorFrom("float64", SHAPE, changed) }, "y");
  for (const sample of [0, 1]) {
    const own = (y: number[]) => y.slice(sample * 28, sample * 28 + 16);
    assert.deepEqual(own(after), own(before), "the tokens before the changed ones");
  }
  assert.notDeepEqual(after.slice(16, 28), before.slice(16, 28));
});

test("gradients agree with finite differences, in every form", () => {
  const forms: Partial<MixtureOfExpertsOptions>[] = [
    {},
    { activation: "swiglu", bias: false },
    { capacity: 0.75, zLoss: 0.1, balance: 0.3 },
    { capacity: 1.25, topK: 1, balanceOver: "batch", balance: 0.5 },
    { topK: 3, renormalize: false, capacity: 1, activation: "swiglu" },
  ];
  for (const form of forms) {
    checkModelGradients(layer([5, 4], { experts: 4, hidden: 3, ...form }), { probes: 12 });
  }
  checkModelGradients(layer([4], { experts: 3, hidden: 3 }), { batch: 5, probes: 6 });
});

test("the losses of the router are in the training loss only", () => {
  const definition = layer([7, 4], { ...WIDE, balance: 0.5, zLoss: 0.25 });
  const [model, evaluated] = [build(definition, 3), build(definition, 3, "eval")];
  const plain = build(layer([7, 4], { ...WIDE, balance: 0 }), 3);
  const inputs = drawn(model);
  const loss = (own: Model) => numbersOf(own, inputs, "loss")[0] as number;
  assert.equal(loss(evaluated), loss(plain));
  const routers = loss(model) - loss(plain);
  assert.ok(routers > 0.5 && routers < 2.5, `${routers}`);
  const sizes = [evaluated, plain].map(({ graph }) => graph.nodes.length);
  assert.equal(sizes[0], sizes[1], "evaluation computes nothing for them");
});

test("the load-balancing loss is 1 if tokens are spread evenly, and E if all choose one expert", () => {
  const options = { experts: 4, topK: 1, hidden: 2, zLoss: 0 } as const;
  const x = tensorFrom(
    "float64",
    [2, 4, 4],
    [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, ...new Array<number>(16).fill(1)],
  );
  for (const balanceOver of ["sequence", "batch"] as const) {
    const own = { ...options, balanceOver };
    const [model, plain] = [
      build(layer([4, 4], { ...own, balance: 1 }), 2),
      build(layer([4, 4], { ...own, balance: 0 }), 2),
    ];
    const lossWith = (router: number[]) => {
      const weight = tensorFrom("float64", [4, 4], router);
      const inputs = { ...drawWeights(model), x, target: x, "moe.router.weight": weight };
      const [all = 0, bare = 0] = [model, plain].map((on) => numbersOf(on, inputs, "loss")[0]);
      return all - bare;
    };
    // Each token of sample 0 has an expert of its own; all tokens of sample 1 choose the first one,
    // with equal probabilities of all, or with certainty.
    const each = [100, 0, 0, 0, 0, 100, 0, 0, 0, 0, 100, 0, 0, 0, 0, 100];
    const one = new Array<number>(16).fill(0).map((_, at) => (at % 4 === 0 ? 100 : 0));
    near([lossWith(each)], [1], `even, over the ${balanceOver}`);
    near([lossWith(one)], [4], `one expert, over the ${balanceOver}`);
  }
});

test("impossible options name the layer", () => {
  const refuses = (dims: Shape, options: Partial<MixtureOfExpertsOptions>, message: RegExp) =>
    assert.throws(() => build(layer(dims, { experts: 4, hidden: 3, ...options }), 2), {
      code: "INVALID_OPTION",
      message,
    });
  refuses([5, 4], { topK: 5 }, /^moe: each token would go through 5 of 4 experts/);
  refuses([5, 4], { topK: 1, renormalize: true }, /^moe: .*the router would learn nothing/);
  refuses([4], { capacity: 1 }, /^moe.experts: a capacity counts the tokens of a sample/);
  refuses([5, 4], { capacity: 0 }, /moe \(mixtureOfExperts\): capacity is 0/);
  refuses([5, 4], { experts: 0 }, /experts is 0/);
});
