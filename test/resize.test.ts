/**
 * Every mode of Resize: the engine's numbers are compared with the reference, and gradients with
 * finite differences.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createOrtEngine, type Device, evaluate } from "../src/engine/index.ts";
import type { AttributeInputs, GraphBuilder, Value } from "../src/graph/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { interpret } from "../src/reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../src/tensor/index.ts";
import { checkGradient } from "./support/gradient-check.ts";
import { randomNumbers } from "./support/random.ts";

let engine: Device;
before(() => {
  engine = createOrtEngine({ threads: 1 });
});
after(() => engine.close());

interface ResizeCase {
  readonly attributes: AttributeInputs;
  /** The sizes of the two last dims of (1, 2, 5, 6). */
  readonly sizes: readonly number[];
  readonly region?: readonly number[];
}

const cases: ResizeCase[] = [];
for (const mode of ["linear", "cubic"]) {
  for (const coordinate_transformation_mode of ["half_pixel", "asymmetric", "align_corners"]) {
    for (const exclude_outside of [0, 1]) {
      // exclude_outside matters for kernels that reach further than the two neighbours.
      for (const antialias of mode === "linear" && exclude_outside === 1 ? [1] : [0, 1]) {
        const attributes = { mode, coordinate_transformation_mode, exclude_outside, antialias };
        cases.push({ attributes, sizes: [3, 9] });
      }
    }
  }
}
cases.push({ attributes: { mode: "cubic", antialias: 1, cubic_coeff_a: -0.5 }, sizes: [2, 3] });
for (const mode of ["linear", "nearest", "cubic"]) {
  const crop = { mode, coordinate_transformation_mode: "tf_crop_and_resize" };
  cases.push({
    attributes: { ...crop, extrapolation_value: 7 },
    sizes: [4, 5],
    region: [0, 0, 0.2, -0.3, 1, 1, 0.7, 1.4],
  });
  cases.push({ attributes: crop, sizes: [5, 1], region: [0, 0, 0.1, 0.25, 1, 1, 0.9, 0.5] });
  for (const keep_aspect_ratio_policy of ["not_larger", "not_smaller"]) {
    const attributes = { mode, keep_aspect_ratio_policy, axes: [2, 3] };
    cases.push({ attributes, sizes: [4, 9] }, { attributes, sizes: [8, 4] });
  }
}

const shape = [1, 2, 5, 6];

function build(b: GraphBuilder, x: Value, { attributes, sizes, region }: ResizeCase): Value {
  const roi = region && b.constant(tensorFrom("float32", [region.length], region));
  const all = attributes["axes"] === undefined ? [...shape.slice(0, 2), ...sizes] : sizes;
  return b.one("Resize", [x, roi, undefined, b.ints(all)], attributes);
}

for (const given of cases) {
  const name = Object.values(given.attributes).join(", ");
  test(`Resize to ${given.sizes.join(" by ")}: ${name}`, async () => {
    const b = newBuilder("resize");
    const x = tensorFrom("float32", shape, randomNumbers(4, 60));
    const graph = b.build([build(b, b.input("x", x), given)]);
    const ours = Object.values(interpret(graph, { x }))[0] as Tensor;
    const theirs = Object.values(await evaluate(engine, graph, { x }))[0] as Tensor;
    assert.deepEqual(theirs.shape, ours.shape);
    for (const [i, value] of toNumbers(theirs).entries()) {
      const wanted = toNumbers(ours)[i] as number;
      assert.ok(Math.abs(value - wanted) < 2e-5, `[${i}]: the engine ${value}, we ${wanted}`);
    }
    checkGradient({ inputs: { x: shape }, build: (v, own) => build(own, v["x"] as Value, given) });
  });
}
