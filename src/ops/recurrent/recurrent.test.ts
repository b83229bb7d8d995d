import { test } from "node:test";
import fc from "fast-check";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { buildNode, drawNode } from "../../../test/support/recurrent.ts";
import { tensorFrom } from "../../tensor/index.ts";

test("LSTM, GRU and RNN: gradients over drawn sizes, directions, lengths, states, functions and bounds", () => {
  fc.assert(
    fc.property(drawNode(), (node) => {
      const { lengths } = node;
      checkGradient({
        inputs: {
          ...node.shapes,
          ...(lengths ? { lengths: tensorFrom("int32", [lengths.length], lengths) } : {}),
        },
        build: (values) => buildNode(node, values),
      });
    }),
    { numRuns: 60, seed: 7, includeErrorInReport: true },
  );
});

test("LSTM, GRU and RNN: the gradient of the gradient", () => {
  fc.assert(
    fc.property(drawNode(["Sigmoid", "Tanh"]), (node) => {
      checkGradient({
        inputs: node.shapes,
        build: (values) => buildNode(node, values),
        second: true,
      });
    }),
    { numRuns: 12, seed: 3, includeErrorInReport: true },
  );
});
