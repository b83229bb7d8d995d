/**
 * Compares operators and our gradients with PyTorch's numbers (`fixtures/`, made by `generate.py`):
 * in float64 on the reference interpreter, and in float32 on ONNX Runtime.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { backward } from "../../src/autodiff/index.ts";
import { createOrtEngine, type Device, evaluate } from "../../src/engine/index.ts";
import type { AttributeInputs, Graph, Value } from "../../src/graph/index.ts";
import { newBuilder } from "../../src/ops/index.ts";
import { interpret } from "../../src/reference/index.ts";
import { type DType, isFloat, type Tensor, tensorFrom, toNumbers } from "../../src/tensor/index.ts";

interface FixtureTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: readonly (number | string)[];
}

interface FixtureInput extends FixtureTensor {
  readonly name: string;
  readonly constant: boolean;
}

interface FixtureCase {
  readonly name: string;
  readonly op: string;
  readonly attributes: AttributeInputs;
  readonly inputs: readonly (FixtureInput | null)[];
  readonly outputs: readonly FixtureTensor[];
  readonly outputCount: number;
  readonly seeds: readonly (readonly number[] | null)[];
  readonly gradients: Readonly<Record<string, readonly (number | string)[] | null>>;
  readonly skipEngine?: string;
  readonly tolerance?: number;
}

/** Builds a case that is not one ONNX operator. */
export type CaseBuilder = (
  inputs: readonly (Value | undefined)[],
  attributes: AttributeInputs,
) => Value | readonly Value[];

/** Declares two tests for each case of `fixtures/<family>.json`. */
export function checkFamily(
  family: string,
  builders: Readonly<Record<string, CaseBuilder>> = {},
): void {
  // Tests run from build/test/torch; fixtures stay among the sources.
  const path = new URL(`../../../test/torch/fixtures/${family}.json`, import.meta.url);
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: FixtureCase[] };
  describe(`${family} against PyTorch`, () => {
    let engine: Device;
    before(() => {
      engine = createOrtEngine({ threads: 1 });
    });
    after(() => engine.close());
    for (const fixture of cases) {
      test(`${fixture.name}: reference, float64`, () => {
        const { graph, feeds } = prepare(fixture, "float64", builders);
        compare(fixture, graph, interpret(graph, feeds), 1e-8);
      });
      test(`${fixture.name}: ONNX Runtime, float32`, { skip: fixture.skipEngine }, async () => {
        const { graph, feeds } = prepare(fixture, "float32", builders);
        const results = await evaluate(engine, graph, feeds);
        compare(fixture, graph, results, fixture.tolerance ?? 2e-5);
      });
    }
  });
}

/** Returns the outputs of the case and then the gradients, as one graph in the given precision. */
function prepare(
  fixture: FixtureCase,
  precision: DType,
  builders: Readonly<Record<string, CaseBuilder>>,
): { graph: Graph; feeds: Record<string, Tensor> } {
  const builder = newBuilder(fixture.name);
  const feeds: Record<string, Tensor> = {};
  const inputs = fixture.inputs.map((given) => {
    if (given === null) return undefined;
    const tensor = tensorOf(given, precision);
    if (given.constant) return builder.constant(tensor);
    feeds[given.name] = tensor;
    return builder.input(given.name, { dtype: tensor.dtype, shape: tensor.shape });
  });
  const make = builders[fixture.op];
  const made = make
    ? [make(inputs, fixture.attributes)].flat()
    : builder.emit(fixture.op, inputs, fixture.attributes, { outputs: fixture.outputCount });
  const outputs = fixture.outputs.map((_, index) => made[index] as Value);
  const seeded = outputs.filter((_, index) => fixture.seeds[index] !== null);
  const seeds = outputs.flatMap(({ dtype, shape }, index) => {
    const numbers = fixture.seeds[index];
    return numbers ? [builder.constant(tensorFrom(dtype, shape, numbers))] : [];
  });
  const names = Object.keys(fixture.gradients);
  const gradients =
    names.length === 0
      ? []
      : backward(
          seeded,
          names.map((name) => builder.value(name)),
          seeds,
        );
  const reached = gradients.filter((gradient) => gradient !== undefined);
  const missing = names.filter((name, index) => {
    const zero = fixture.gradients[name]?.every((number) => number === 0) ?? true;
    return gradients[index] === undefined && !zero;
  });
  assert.deepEqual(missing, [], "inputs without a gradient");
  const own = [...outputs, ...reached].map((value) => builder.one("Identity", [value]));
  return { graph: builder.build(own), feeds };
}

function tensorOf({ dtype, shape, data }: FixtureTensor, precision: DType): Tensor {
  return tensorFrom(isFloat(dtype) ? precision : dtype, shape, data.map(Number));
}

function compare(
  fixture: FixtureCase,
  graph: Graph,
  results: Readonly<Record<string, Tensor>>,
  tolerance: number,
): void {
  const present = Object.entries(fixture.gradients).filter(([, numbers]) => numbers !== null);
  const expected = [
    ...fixture.outputs.map(({ shape, data }, index) => ({ what: `output ${index}`, shape, data })),
    ...present.map(([name, data]) => ({ what: `gradient of ${name}`, shape: undefined, data })),
  ];
  const actual = graph.outputs.map((name) => results[name] as Tensor);
  // If PyTorch has zeros, a rule may say that there is no gradient at all; such a gradient is left
  // out here.
  const wanted = expected.filter(
    ({ data }, index) =>
      index < fixture.outputs.length ||
      actual.length === expected.length ||
      !(data as readonly unknown[]).every((number) => number === 0),
  );
  assert.equal(actual.length, wanted.length, "how many results there are");
  for (const [index, { what, shape, data }] of wanted.entries()) {
    const result = actual[index] as Tensor;
    if (shape !== undefined) assert.deepEqual(result.shape, shape, `shape of ${what}`);
    compareNumbers(what, toNumbers(result), (data ?? []).map(Number), tolerance);
  }
}

function compareNumbers(
  what: string,
  actual: readonly number[],
  expected: readonly number[],
  tolerance: number,
): void {
  assert.equal(actual.length, expected.length, `size of ${what}`);
  const scale = Math.max(1, ...expected.filter(Number.isFinite).map(Math.abs));
  for (const [index, wanted] of expected.entries()) {
    const got = actual[index] as number;
    const near =
      Object.is(got, wanted) || got === wanted || Math.abs(got - wanted) <= tolerance * scale;
    assert.ok(near, `${what} [${index}]: ${got}, PyTorch ${wanted}`);
  }
}
