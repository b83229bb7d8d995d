import assert from "node:assert/strict";
import { test } from "node:test";
import { gpt, type ModelDefinition, mlp } from "../nn/index.ts";
import { forwardGraph } from "./forward.ts";

const forward = (definition: ModelDefinition) => {
  const graph = forwardGraph(definition.build({ batch: 2, mode: "eval" }));
  return { inputs: graph.inputs.filter((name) => !name.includes(".")), outputs: graph.outputs };
};

test("a forward graph predicts without labels and measures nothing", () => {
  assert.deepEqual(forward(mlp({ inputs: 3, hidden: [], outputs: 2 })), {
    inputs: ["x"],
    outputs: ["logits"],
  });
  assert.deepEqual(forward(gpt({ layers: 1, width: 4, heads: 1, context: 3 })), {
    inputs: ["ids"],
    outputs: ["logits"],
  });
});
