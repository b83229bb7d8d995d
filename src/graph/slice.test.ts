import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { newBuilder } from "../ops/index.ts";
import { interpret } from "../reference/index.ts";
import { tensorFrom, toNumbers } from "../tensor/index.ts";
import type { Graph } from "./graph.ts";
import { sliceGraph, withOutputs } from "./slice.ts";

function twice(): Graph {
  const b = newBuilder("twice");
  const x = b.input("x", { dtype: "float32", shape: [2] });
  const two = b.namedConstant("two", tensorFrom("float32", [2], [2, 2]));
  const same = b.namedConstant("same", tensorFrom("float32", [2], [2, 2]));
  const left = b.one("Mul", [x, b.one("Identity", [two])]);
  const right = b.one("Mul", [x, same]);
  const sum = b.one("Add", [left, b.one("Identity", [right])]);
  return b.build([b.append("Identity", "out", [sum], {}, ["y"])[0] ?? sum]);
}

test("a slice runs from cut points to outputs, and takes what else it needs", () => {
  const part = sliceGraph(twice(), { name: "part", inputs: ["Mul_1"], outputs: ["Add_1"] });
  assert.deepEqual(part.inputs, ["Mul_1", "x"]);
  assert.deepEqual(
    part.nodes.map(({ op }) => op),
    ["Mul", "Identity", "Add"],
  );
  assert.deepEqual([...part.constants.keys()], ["same"]);
  const copy = sliceGraph(twice(), { outputs: ["Mul_1"] });
  assert.deepEqual(copy.outputs, ["Mul_1"]);
  assert.throws(() => sliceGraph(twice(), { outputs: ["absent"] }), { code: "INVALID_GRAPH" });
});

test("a node cannot be cut in half", () => {
  const b = newBuilder("halves");
  const x = b.input("x", { dtype: "float32", shape: [4] });
  const [left, right] = b.emit("Split", [x, b.ints([2, 2])], { axis: 0 }, { outputs: 2 });
  assert.ok(left !== undefined && right !== undefined);
  const graph = b.build([b.one("Add", [left, right])]);
  assert.throws(() => sliceGraph(graph, { inputs: [left.name], outputs: graph.outputs }), {
    code: "INVALID_GRAPH",
    message: /other outputs of node/,
  });
  const both = sliceGraph(graph, { inputs: [left.name, right.name], outputs: graph.outputs });
  assert.deepEqual(both.inputs, [left.name, right.name]);
});

/** Random expressions over two inputs, with many equal parts. */
const programs = fc.array(
  fc.record({
    op: fc.constantFrom("Add", "Mul", "Sub", "Identity", "Neg"),
    left: fc.nat(),
    right: fc.nat(),
  }),
  { minLength: 1, maxLength: 25 },
);

test("a graph with fewer outputs gives the same results, without the nodes that only others need", () => {
  fc.assert(
    fc.property(programs, fc.array(fc.nat(), { minLength: 1, maxLength: 3 }), (program, picks) => {
      const b = newBuilder("random");
      const type = { dtype: "float32", shape: [2] } as const;
      const values = [b.input("x", type), b.input("y", type)];
      for (const number of [1, 2, 1]) {
        values.push(b.namedConstant(`c${values.length}`, tensorFrom("float32", [], [number])));
      }
      for (const { op, left, right } of program) {
        const [l, r] = [values[left % values.length], values[right % values.length]];
        values.push(b.one(op, op === "Identity" || op === "Neg" ? [l] : [l, r]));
      }
      const made = values.slice(5);
      const outputs = new Set(picks.map((pick) => made[pick % made.length] as (typeof made)[0]));
      const graph = b.build(made);
      const names = [...outputs].map(({ name }) => name);
      const part = withOutputs(graph, names);
      const read = new Set([...names, ...part.nodes.flatMap((node) => node.inputs)]);
      assert.ok(part.nodes.every((node) => node.outputs.some((name) => read.has(name))));
      assert.deepEqual(part.outputs, names);
      assert.deepEqual(part.inputs, graph.inputs);
      const inputs = {
        x: tensorFrom("float32", [2], [3, -1]),
        y: tensorFrom("float32", [2], [0.5, 7]),
      };
      const [before, after] = [interpret(graph, inputs), interpret(part, inputs)];
      for (const name of names) {
        const [a, z] = [before[name], after[name]];
        assert.ok(a !== undefined && z !== undefined);
        assert.deepEqual(toNumbers(z), toNumbers(a));
      }
    }),
    { numRuns: 200 },
  );
});
