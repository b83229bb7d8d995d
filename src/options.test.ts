import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { DType, Scope, Value } from "./index.ts";
import * as lockstep from "./index.ts";

/** The public functions as run files call them, without type checks. */
const api = lockstep as unknown as Readonly<Record<string, (...given: unknown[]) => unknown>>;

/** Functions that take values, numbers and texts by position. */
const WITHOUT_OPTIONS: ReadonlySet<string> = new Set(
  `LockstepError abs accuracy activate add additiveMask and argMax argMin backward cast classify clip concat cos defineModel
  derivative differentiate div dropout elu equal erf exp expand flatten floor formatInspection full gather gatherElements gatherND
  globalAveragePool greater greaterOrEqual leakyRelu less lessOrEqual log logSoftmax maximum minimum mul neg not oneHot or pad
  positions pow range readModel reciprocal regress relu reshape residual scatterElements sigmoid sign sin softmax softplus split
  sqrt square squeeze sub swapLast tanh tensorFrom tile toNumbers topK transpose unsqueeze where withDevices zerosLike`.split(
    /\s+/,
  ),
);

function refuses(body: () => unknown, name: string, near: string, message: RegExp): void {
  assert.throws(
    body,
    (error: unknown) => {
      assert(error instanceof lockstep.LockstepError, `${name}: ${String(error)}`);
      assert.equal(error.code, "INVALID_OPTION", name);
      assert.match(error.message, message);
      assert.ok(error.hint?.includes(`Did you mean "${near}"?`), `${name}: ${error.hint}`);
      return true;
    },
    name,
  );
}

const call = (name: string, ...given: unknown[]) => {
  const made = api[name]?.(...given);
  return made;
};

test("an unknown option is refused by every public function that takes options", () => {
  const gpt = { layers: 1, width: 8, heads: 2, context: 8 };
  const cases: readonly [name: string, ...given: unknown[]][] = [
    ["adam", { lr: 1e-3 }],
    ["adamw", { lr: 1e-3 }],
    ["sgd", { lr: 1e-3 }],
    ["lion", { lr: 1e-3 }],
    ["muon", { lr: 1e-3 }],
    ["adafactor", { lr: 1e-3 }],
    ["constant", { warmUp: 3 }],
    ["cosine", { warmUp: 3 }],
    ["linearSchedule", { decay: 3 }],
    ["wsd", { decay: 3, warm: 1 }],
    ["gpt", { ...gpt, vocab: 300 }],
    ["gpt", { ...gpt, experts: { count: 2, topk: 1 } }],
    ["bert", { ...gpt, masks: 0.2 }],
    ["mlp", { inputs: 1, hidden: [], outputs: 2, dropOut: 0.1 }],
    ["convnet", { image: [1, 8, 8], classes: 2, kernel: 5 }],
    ["resnet", { image: [1, 8, 8], classes: 2, depth: 18 }],
    ["pinn", { residual: () => 0, start: { value: 1, slope: 0 }, ends: 2 }],
    ["matrixFactorization", { users: 2, items: 2, dim: 4 }],
    ["dlrm", { dense: 1, categories: [2], embedding: 4 }],
    ["onnx", "m.onnx", { loss: "loss", train: /head/ }],
    ["mse", { prediction: "a", target: "b", weight: 2 }],
    ["huber", { prediction: "a", target: "b", beta: 2 }],
    ["crossEntropy", { logits: "a", labels: "b", ignore_index: -100 }],
    ["binaryCrossEntropyWithLogits", { logits: "a", target: "b", pos_weight: 2 }],
    ["text", "a.txt", { tokeniser: "t.json" }],
    ["jsonl", "a.jsonl", { key: "text" }],
    ["csv", "a.csv", { separator: ";" }],
    ["ratings", "u.data", { header: ["a"], skip: 1 }],
    ["npy", { x: "x.npy" }, { shuffle: true }],
    ["safetensors", "x.safetensors", { shuffle: true }],
    ["idxImages", { images: "i", labels: "l" }, { shuffle: true }],
  ];
  for (const [name, ...given] of cases) {
    assert.throws(
      () => call(name, ...given),
      { code: "INVALID_OPTION", message: /no option/ },
      name,
    );
  }
});

/** Calls a layer, or a function of values, inside a model whose field `x` has this shape. */
function within(shape: readonly number[], body: (m: Scope, x: Value) => unknown, dtype?: DType) {
  const model = lockstep.defineModel("one", (m) => {
    const x = m.input("x", [m.batch, ...shape], dtype);
    body(m, x);
    return { loss: lockstep.reduceMean(lockstep.cast(x, "float32"), { keepdims: false }) };
  });
  model.build({ batch: 2, mode: "train" });
}

/** A function of a model's values with a misspelt option, and the option that is meant. */
type Misspelt = readonly [
  name: string,
  shape: readonly number[],
  given: (x: Value, m: Scope) => readonly unknown[],
  near: string,
];

const LAYERS: readonly Misspelt[] = [
  ["linear", [3], () => [{ outputs: 2, bais: false }], "bias"],
  ["linear", [3], () => [{ output: 2 }], "outputs"],
  ["embedding", [3], () => [{ vocab: 4, width: 2 }], "vocabulary"],
  ["attention", [4, 8], () => [{ heads: 2, casual: true }], "causal"],
  ["conv1d", [3, 8], () => [{ outputs: 2, kernel: 3, strides: 2 }], "stride"],
  ["conv2d", [3, 8, 8], () => [{ outputs: 2, kernel: 3, paddding: 1 }], "padding"],
  ["maxPool", [3, 8, 8], () => [{ kernel: 2, strid: 1 }], "stride"],
  ["averagePool", [3, 8, 8], () => [{ kernel: 2, pad: 1 }], "padding"],
  ["layerNorm", [8], () => [{ eps: 1e-6 }], "epsilon"],
  ["rmsNorm", [8], () => [{ epsilom: 1e-6 }], "epsilon"],
  ["groupNorm", [4, 6], () => [{ groups: 2, Epsilon: 1e-6 }], "epsilon"],
  ["batchNorm", [4, 6], () => [{ momentun: 0.2 }], "momentum"],
  ["lstm", [5, 3], () => [{ hidden: 2, layer: 2 }], "layers"],
  ["gru", [5, 3], () => [{ hidden: 2, bi_directional: true }], "bidirectional"],
  ["rnn", [5, 3], () => [{ hidden: 2, actviation: "relu" }], "activation"],
  ["feedForward", [8], () => [{ hidden: 4, biass: false }], "bias"],
  ["mixtureOfExperts", [4, 8], () => [{ experts: 4, hidden: 4, top_k: 1 }], "topK"],
  [
    "transformerBlock",
    [4, 8],
    () => [{ attention: { heads: 2 }, feedForward: { hidden: 4 }, dropOut: 0.1 }],
    "dropout",
  ],
  [
    "transformerBlock",
    [4, 8],
    () => [{ attention: { heads: 2, kv_heads: 1 }, feedForward: { hidden: 4 } }],
    "kvHeads",
  ],
  ["perceptron", [3], () => [[4, 2], { activaton: "tanh" }], "activation"],
];

const FUNCTIONS: readonly Misspelt[] = [
  ["gelu", [3], (x) => [x, { aproximate: "tanh" }], "approximate"],
  ["matmul", [3, 3], (x) => [x, x, { transb: true }], "transB"],
  ["gemm", [2], (x) => [x, x, undefined, { transA: true, bta: 1 }], "beta"],
  ["cumSum", [3], (x) => [x, 1, { reversed: true }], "reverse"],
  ["slice", [3], (x) => [x, [{ axis: 1, start: 0, end: 2, steps: 2 }]], "step"],
  ["layerNormalization", [3], (x) => [x, x, undefined, { epsilonn: 1 }], "epsilon"],
  ["rmsNormalization", [3], (x) => [x, x, { epsilonn: 1 }], "epsilon"],
  ["mse", [3], (x) => [x, x, { reducion: "sum" }], "reduction"],
  ["l1", [3], (x) => [x, x, { reducion: "sum" }], "reduction"],
  ["huber", [3], (x) => [x, x, { dleta: 2 }], "delta"],
  ["crossEntropy", [3], (x) => [x, x, { ignore_index: 0 }], "ignoreIndex"],
  ["nll", [3], (x) => [x, x, { labelSmooting: 0.1 }], "labelSmoothing"],
  ["binaryCrossEntropyWithLogits", [3], (x) => [x, x, { positive_weight: 2 }], "positiveWeight"],
  ["klDivergence", [3], (x) => [x, x, { logtarget: true }], "logTarget"],
  ...["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"].map(
    (kind): Misspelt => [`reduce${kind}`, [3], (x) => [x, { keepDim: false }], "keepdims"],
  ),
  ["causalMask", [3], () => [{ rows: 2, column: 2, start: 0 }], "columns"],
];

test("layers and functions of values refuse an unknown option, and suggest the nearest", () => {
  for (const [name, shape, given, near] of LAYERS) {
    const what = (m: Scope, x: Value) => call(name, m.child("part"), x, ...given(x, m));
    refuses(() => within(shape, what), name, near, /part\b.*no option/);
  }
  for (const [name, shape, given, near] of FUNCTIONS) {
    const first = name === "causalMask" ? (m: Scope) => [m] : () => [];
    const what = (m: Scope, x: Value) => call(name, ...first(m), ...given(x, m));
    refuses(() => within(shape, what), name, near, new RegExp(`${name}.*no option`));
  }
  const parameter = (m: Scope) =>
    m.parameter("w", [2], { kind: "zeros" }, { decays: false } as object);
  refuses(() => within([3], parameter), "parameter", "decay", /"w".*no option/);
});

test("options of layers must have values of the right kind", () => {
  const wrong: readonly [string, readonly number[], object][] = [
    ["linear", [3], { outputs: "2" }],
    ["linear", [3], { outputs: 2, bias: "no" }],
    ["feedForward", [3], { hidden: 2, activation: "gelo" }],
    ["layerNorm", [3], { epsilon: "small" }],
    ["rnn", [4, 3], { hidden: 2, activation: "relu6" }],
    ["transformerBlock", [4, 8], { attention: {}, feedForward: {}, normPlace: "behind" }],
  ];
  for (const [name, shape, options] of wrong) {
    const what = (m: Scope, x: Value) => call(name, m.child("part"), x, options);
    assert.throws(() => within(shape, what), { code: "INVALID_OPTION" }, name);
  }
  const sums = (_: Scope, x: Value) => call("mse", x, x, { reduction: "none" });
  assert.throws(() => within([3], sums), {
    code: "INVALID_OPTION",
    message: /reduction is "none"/,
  });
});

test("functions of files, engines and graphs refuse unknown options", async () => {
  const model = lockstep.mlp({ inputs: 1, hidden: [], outputs: 2 });
  const { graph } = model.build({ batch: 2, mode: "train" });
  const cases: readonly [name: string, near: string, ...given: unknown[]][] = [
    ["createOrtEngine", "threads", { thread: 2 }],
    ["encodeModel", "metadata", graph, { metaData: {} }],
    ["toSymbolicBatch", "fixedBatch", () => graph, { fixed_batch: 2 }],
    ["inspectModel", "shapes", "none.onnx", { shape: {} }],
    ["importGraph", "trainable", {}, { trainables: true }],
  ];
  for (const [name, near, ...given] of cases) {
    refuses(() => call(name, ...given), name, near, /no option/);
  }
  refuses(
    () => model.build({ batch: 2, mode: "train", dType: "float64" } as never),
    "build",
    "dtype",
    /mlp.*no option/,
  );
  const later: readonly [name: string, near: string, ...given: unknown[]][] = [
    ["writeModel", "externalData", "none.onnx", graph, { external_data: "always" }],
    ["evaluate", "threads", {}, graph, {}, { treads: 1 }],
    ["createTrainer", "optimizer", { engine: {}, model: {}, optimiser: {} }],
  ];
  for (const [name, near, ...given] of later) {
    const failure = await (call(name, ...given) as Promise<unknown>).then(
      () => undefined,
      (error: unknown) => error,
    );
    refuses(
      () => {
        throw failure;
      },
      name,
      near,
      /no option/,
    );
  }
});

test("every public function is among these tests, or takes no options", () => {
  const text = readFileSync(fileURLToPath(import.meta.url), "utf8");
  const functions = Object.entries(api).filter(([, value]) => typeof value === "function");
  const missing = functions
    .map(([name]) => name)
    .filter((name) => {
      const isTested = text.includes(`["${name}"`) || text.includes(`call("${name}"`);
      const isReduction = FUNCTIONS.some(([tested]) => tested === name);
      return !isTested && !isReduction && !WITHOUT_OPTIONS.has(name);
    });
  assert.deepEqual(missing, []);
});

test("a value that is not options, or has the wrong kind, is INVALID_OPTION and never a bug", () => {
  const cases: readonly [name: string, ...given: unknown[]][] = [
    ["gpt"],
    ["mlp", null],
    ["dlrm", { dense: 1 }],
    ["gpt", { layers: "2", width: 8, heads: 2, context: 8 }],
    ["bert", { layers: 1, width: 8, heads: 2, context: 8, vocabulary: 10, maskToken: 10 }],
    ["sgd", null],
    ["sgd", { learningRate: "0.1" }],
    ["adamw", { betas: [0.9] }],
    ["wsd", {}],
    ["onnx", undefined, { loss: "loss" }],
    ["onnx", "m.onnx"],
    ["onnx", "m.onnx", {}],
    ["arrays", { x: [1, 2, 3] }],
    ["arrays"],
    ["csv", "a.csv", null],
    ["csv", "a.csv", { heldOut: "0.1" }],
    ["csv", "a.csv", { header: "a,b" }],
    ["csv", "a.csv", { categories: { kind: ["a", "b", "a"] } }],
    ["idxImages"],
    ["npy"],
    ["defineRun"],
    ["defineRun", {}],
  ];
  for (const [name, ...given] of cases) {
    assert.throws(() => call(name, ...given), { code: "INVALID_OPTION" }, name);
  }
});

test("a run has no options but its own", () => {
  const run = {
    model: lockstep.mlp({ inputs: 1, hidden: [], outputs: 2 }),
    data: lockstep.csv("a.csv"),
    optimizer: lockstep.sgd(),
    batch: 4,
    steps: 1,
  };
  assert.equal(lockstep.defineRun(run).batch, 4);
  assert.throws(() => call("defineRun", { ...run, microbatches: 2 }), {
    code: "INVALID_OPTION",
    message: /microbatches/,
  });
  assert.throws(() => call("defineRun", { ...run, evaluate: { each: 2 } }), {
    code: "INVALID_OPTION",
    message: /evaluate/,
  });
});
