/**
 * The trap test itself: it must catch the fault that it was made for, and let correct operators
 * pass.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Graph } from "../src/graph/index.ts";
import { type Shape, type TensorType, tensorFrom } from "../src/tensor/index.ts";
import { randomNumbers, randomSource } from "./support/random.ts";
import { assertSameBitsAcrossThreads } from "./support/threads.ts";

const TABLE: Shape = [65, 128];
const ROWS = 2048;

/**
 * Adds rows to a table at repeated indices with `op`. Nodes are written out, because no builder
 * makes ScatterND(add).
 */
function scatterAdd(op: "ScatterND" | "ScatterElements", indices: Shape): Graph {
  const types: [string, TensorType][] = [
    ["table", { dtype: "float32", shape: TABLE }],
    ["indices", { dtype: "int64", shape: indices }],
    ["rows", { dtype: "float32", shape: [ROWS, 128] }],
    ["sum", { dtype: "float32", shape: TABLE }],
  ];
  return {
    name: `${op} with repeated indices`,
    inputs: ["table", "indices", "rows"],
    outputs: ["sum"],
    constants: new Map(),
    types: new Map(types),
    nodes: [
      {
        op,
        name: "scatter",
        inputs: ["table", "indices", "rows"],
        outputs: ["sum"],
        attributes: { reduction: { kind: "string", value: "add" } },
      },
    ],
  };
}

function inputsFor(indices: Shape) {
  const random = randomSource(7);
  const width = indices[1] ?? 1;
  const drawn = Array.from({ length: ROWS }, () => Math.floor(random() * 65));
  return {
    table: tensorFrom("float32", TABLE, new Float32Array(65 * 128)),
    indices: tensorFrom(
      "int64",
      indices,
      drawn.flatMap((index) => new Array<number>(width).fill(index)),
    ),
    rows: tensorFrom("float32", [ROWS, 128], randomNumbers(1, ROWS * 128)),
  };
}

test("the trap catches ScatterND(add), which loses updates on two threads", async () => {
  const graph = scatterAdd("ScatterND", [ROWS, 1]);
  await assert.rejects(
    // Half of the executions lose updates on two idle cores; on busy ones, threads seldom meet.
    assertSameBitsAcrossThreads(graph, inputsFor([ROWS, 1]), { rounds: 2000 }),
    /differs between 1 and 2 threads/,
    "ONNX Runtime has repaired ScatterND(add): say so in docs/decisions and allow it",
  );
});

test("the trap lets ScatterElements(add) pass, which is correct", async () => {
  const graph = scatterAdd("ScatterElements", [ROWS, 128]);
  await assertSameBitsAcrossThreads(graph, inputsFor([ROWS, 128]));
});
