/**
 * The aliases that mayAlias allows are safe: random graphs give the same bits with and without
 * outputs written over inputs.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createOrtEngine, type Device, type HostTensor } from "../src/engine/index.ts";
import { type Graph, typeOf, type Value } from "../src/graph/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { byteLength, tensorFrom } from "../src/tensor/index.ts";
import { randomNumbers } from "./support/random.ts";

const SIZE = 64;
const TYPE = { dtype: "float32" as const, shape: [SIZE, SIZE] };
const UNARY = ["Relu", "Tanh", "Sigmoid", "Exp", "Neg", "Softmax", "Identity"];
const BINARY = ["Add", "Mul", "Sub", "Max"];
const MIXING = ["MatMul", "Transpose", "ReduceSum"];
const INPUTS = ["a", "b", "c"];

/**
 * A node: an operator, and which of the values before it are its inputs, counted from the newest.
 */
const node = fc.tuple(
  fc.constantFrom(...BINARY, ...BINARY, ...UNARY, ...MIXING),
  fc.nat(5),
  fc.nat(5),
);
const recipe = fc.record({
  nodes: fc.array(node, { minLength: 1, maxLength: 8 }),
  outputs: fc.array(fc.nat(7), { minLength: 1, maxLength: 3 }),
});

function build({ nodes, outputs }: typeof recipe extends fc.Arbitrary<infer R> ? R : never): Graph {
  const builder = newBuilder("aliases");
  const values: Value[] = INPUTS.map((name) => builder.input(name, TYPE));
  for (const [op, first, second] of nodes) {
    const a = values.at(-1 - (first % values.length)) as Value;
    const b = values.at(-1 - (second % values.length)) as Value;
    if (BINARY.includes(op) || op === "MatMul") values.push(builder.one(op, [a, b]));
    else if (op === "Transpose") values.push(builder.one(op, [a], { perm: [1, 0] }));
    else if (op === "ReduceSum") {
      const sum = builder.one(op, [a, builder.ints([1])], { keepdims: 1 });
      values.push(builder.one("Add", [b, sum]));
    } else values.push(builder.one(op, [a]));
  }
  const made = values.slice(INPUTS.length);
  const chosen = new Set(outputs.map((index) => made[index % made.length] as Value));
  return builder.build([...chosen]);
}

async function run(engine: Device, graph: Graph, alias: boolean) {
  const executable = await engine.compile(graph);
  const place = (name: string): HostTensor => {
    const type = typeOf(graph, name);
    return engine.allocateHost(byteLength(type)).tensor(type);
  };
  const inputs = Object.fromEntries(graph.inputs.map((name) => [name, place(name)]));
  for (const [index, name] of graph.inputs.entries()) {
    const numbers = randomNumbers(index + 1, SIZE * SIZE);
    inputs[name]?.bytes.set(tensorFrom("float32", [SIZE, SIZE], numbers).bytes);
  }
  const taken = new Set<string>();
  const outputs: Record<string, HostTensor> = {};
  for (const name of graph.outputs) {
    const over = graph.inputs.find(
      (input) => !taken.has(input) && executable.mayAlias(name, input),
    );
    if (alias && over !== undefined) taken.add(over);
    outputs[name] = (alias && over !== undefined ? inputs[over] : undefined) ?? place(name);
  }
  const binding = executable.bind({ inputs, outputs });
  await binding.run();
  const results = graph.outputs.map((name) => Buffer.from(outputs[name]?.bytes ?? []));
  executable.close();
  for (const { buffer } of [...Object.values(inputs), ...Object.values(outputs)]) buffer.close();
  return { results, aliases: taken.size };
}

test("outputs over inputs change nothing", async () => {
  const engine = createOrtEngine({ threads: 2 });
  let aliases = 0;
  await fc.assert(
    fc.asyncProperty(recipe, async (drawn) => {
      const graph = build(drawn);
      const apart = await run(engine, graph, false);
      const over = await run(engine, graph, true);
      aliases += over.aliases;
      for (const [index, name] of graph.outputs.entries()) {
        const same = apart.results[index]?.equals(over.results[index] as Buffer);
        assert.ok(same, `output ${name} of ${graph.nodes.map(({ op }) => op).join(" ")}`);
      }
    }),
    { numRuns: 300, seed: 11 },
  );
  assert.ok(aliases > 60, `only ${aliases} outputs were written over inputs`);
  await engine.close();
});
