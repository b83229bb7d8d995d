import assert from "node:assert/strict";
import { test } from "node:test";
import * as lockstep from "./index.ts";

/** As run files call them: nothing has checked their types. */
const api = lockstep as unknown as Readonly<Record<string, (...given: unknown[]) => unknown>>;

const call = (name: string, ...given: unknown[]) => {
  const made = api[name]?.(...given);
  return made;
};

test("an option that does not exist is refused by every public function that takes options", () => {
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
    ["bert", { ...gpt, masks: 0.2 }],
    ["mlp", { inputs: 1, hidden: [], outputs: 2, dropOut: 0.1 }],
    ["convnet", { image: [1, 8, 8], classes: 2, kernel: 5 }],
    ["resnet", { image: [1, 8, 8], classes: 2, depth: 18 }],
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

test("what is no option at all, or has the wrong kind, is INVALID_OPTION and never a bug", () => {
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

test("a run has no other options than its own", () => {
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
