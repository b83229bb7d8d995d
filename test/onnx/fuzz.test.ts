/** Real exports whose nodes were changed at random: each is imported, or refused with a code. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { LockstepError } from "../../src/errors.ts";
import { importGraph } from "../../src/import/index.ts";
import { type OnnxFile, readModel } from "../../src/onnx/index.ts";
import { operators } from "../../src/ops/index.ts";

const folder = path.join(import.meta.dirname, "../../../test/onnx/fixtures");
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".onnx"))
  .map((name) => readModel(path.join(folder, name)));

const numbers = fc.constantFrom(-1, 0, 1, 2, 3, 7, -7, 1000, 2 ** 40, -(2 ** 63));

const changes = fc.array(
  fc.record({
    node: fc.nat(),
    at: fc.nat(),
    to: fc.nat(),
    number: numbers,
    kind: fc.constantFrom("operator", "input", "more", "fewer", "attribute", "weight", "output"),
  }),
  { minLength: 1, maxLength: 3 },
);

type Change = typeof changes extends fc.Arbitrary<readonly (infer C)[]> ? C : never;

function pick<T>(list: readonly T[], at: number): T {
  return list[at % list.length] as T;
}

function change(file: OnnxFile, { node: which, at, to, number, kind }: Change): void {
  const { graph } = file.model;
  const node = pick(graph.node, which);
  const names = [
    ...graph.initializer.map(({ name }) => name),
    ...graph.node.flatMap(({ output }) => output),
  ];
  const attribute = node.attribute.length === 0 ? undefined : pick(node.attribute, at);
  const weight = pick(graph.initializer, at);
  switch (kind) {
    case "operator":
      node.opType = pick(Object.keys(operators), to);
      break;
    case "input":
      node.input[at % Math.max(1, node.input.length)] = pick(names, to);
      break;
    case "more":
      node.input.push(pick(names, to));
      break;
    case "fewer":
      node.input.pop();
      break;
    case "attribute":
      if (attribute?.i !== undefined) attribute.i = number;
      if (attribute?.f !== undefined) attribute.f = to % 2 ? Number.NaN : number;
      if (attribute?.t !== undefined) attribute.t.dims.push(1);
      if (attribute !== undefined && attribute.ints.length > 0) {
        attribute.ints[to % attribute.ints.length] = number;
      }
      break;
    case "weight":
      if (to % 2 === 0) weight.dims.reverse();
      else weight.dims.push(1);
      break;
    case "output":
      node.output.push(`extra ${to}`);
      break;
  }
}

/**
 * Testing all pairs takes half a minute, so each node meets one in eleven of the operators,
 * different ones from its neighbours.
 */
const EVERY = 11;

test("an operator in the place of another is imported or refused with a code", () => {
  let pair = 0;
  for (const file of files) {
    for (const node of file.model.graph.node) {
      const { opType } = node;
      for (const operator of Object.keys(operators)) {
        if (pair++ % EVERY !== 0) continue;
        node.opType = operator;
        try {
          importGraph(file, { batch: 2, dims: { batch: 2, length: 4 } });
        } catch (error) {
          assert.ok(error instanceof LockstepError, `${operator}: ${String(error)}`);
          assert.match(error.message, /\.onnx/);
        }
      }
      node.opType = opType;
    }
  }
});

test("models changed at random are imported or refused with a code", () => {
  let imported = 0;
  let refused = 0;
  fc.assert(
    fc.property(fc.nat(), changes, (which, list) => {
      const original = pick(files, which);
      const file = { ...original, model: structuredClone(original.model) };
      for (const item of list) change(file, item);
      try {
        importGraph(file, { batch: 2, dims: { batch: 2, length: 4 } });
        imported++;
      } catch (error) {
        assert.ok(error instanceof LockstepError, String(error));
        assert.match(error.message, /\.onnx/);
        refused++;
      }
    }),
    { numRuns: 1000 },
  );
  assert.ok(imported > 50 && refused > 50, `${imported} imported, ${refused} refused`);
});
