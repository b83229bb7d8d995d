import assert from "node:assert/strict";
import { test } from "node:test";
import { divisionTrials } from "../../../test/support/division-check.ts";
import { drawn } from "../../../test/support/random.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { layout } from "./index.ts";

const { onTwo, tried } = divisionTrials();

const constant = (...numbers: number[]) => ({
  constant: tensorFrom("int64", [numbers.length], numbers),
});

function includes(found: readonly string[], ...wanted: string[]): void {
  for (const text of wanted) assert.ok(found.includes(text), `${text} of ${found.join("; ")}`);
}

test("dims that are moved, added, removed or merged stay cut", () => {
  includes(onTwo({ op: "Transpose", inputs: [drawn([6, 12, 5])] }), "0 -> 2", "1 -> 1");
  includes(onTwo({ op: "Squeeze", inputs: [drawn([6, 1, 12])] }), "2 -> 1");
  includes(onTwo({ op: "Unsqueeze", inputs: [drawn([6, 12]), constant(-2)] }), "1, whole -> 2");
  const flat = { op: "Flatten", inputs: [drawn([6, 12, 5])] };
  includes(onTwo(flat), "0 -> 0", "1 -> 1");
  includes(onTwo({ op: "Reshape", inputs: [drawn([6, 12]), constant(72)] }), "0, whole -> 0");
  includes(onTwo({ op: "Identity", inputs: [drawn([6, 5])] }), "0 -> 0");
  const blocks = { attributes: { blocksize: 2 }, inputs: [drawn([6, 24, 6, 12])] };
  const sections = "6+6+6+6";
  includes(onTwo({ op: "DepthToSpace", ...blocks }), `1(${sections}) -> 1`, "2 -> 2");
  const columns = { blocksize: 2, mode: "CRD" };
  includes(onTwo({ op: "DepthToSpace", ...blocks, attributes: columns }), "1 -> 1");
  const pixels = [drawn([5, 6, 12, 24])];
  includes(onTwo({ op: "SpaceToDepth", ...blocks, inputs: pixels }), `1 -> 1(${sections})`);
});

test("pieces side by side are sections", () => {
  const pieces = [drawn([5, 6]), drawn([5, 12])];
  includes(onTwo({ op: "Concat", attributes: { axis: -1 }, inputs: pieces }), "1, 1 -> 1(6+12)");
  const split = { op: "Split", attributes: { axis: 1 }, outputs: 2 };
  const whole = [drawn([6, 18]), constant(6, 12)];
  includes(onTwo({ ...split, inputs: whole }), "1(6+12), whole -> 1, 1", "0, whole -> 0, 0");
  onTwo({ ...split, inputs: [drawn([5, 7]), constant(5, 2)] });
  const slice = [drawn([6, 18]), constant(6), constant(12), constant(1)];
  includes(onTwo({ op: "Slice", inputs: slice }), "1(6+6+6), whole, whole, whole -> 1");
  const quarters = { proportions: [[1, 1, 1, 1]] };
  const half = { op: "Slice", inputs: [drawn([24, 5]), constant(6), constant(18), constant(0)] };
  includes(onTwo({ ...half, ...quarters }), "0(6+6+6+6), whole, whole, whole -> 0(6+6)");
  includes(onTwo(half), "0(6+12+6), whole, whole, whole -> 0");
  const back = [drawn([6, 12]), constant(-1), constant(-99), constant(1), constant(-1)];
  const reversed = onTwo({ op: "Slice", inputs: back });
  assert.ok(!reversed.some((text) => text.startsWith("1")));
  const padded = onTwo({ op: "Pad", inputs: [drawn([6, 12]), constant(0, 6, 0, 6)] });
  includes(padded, "1, whole -> 1(6+12+6)", "partial, whole -> partial");
  const within = onTwo({ op: "Pad", inputs: [drawn([12]), constant(6, 6)], ...quarters });
  includes(within, "0(6+6), whole -> 0(6+6+6+6)", "0, whole -> 0(6+12+6)");
  const reflect = { op: "Pad", attributes: { mode: "reflect" } };
  onTwo({ ...reflect, inputs: [drawn([6, 7]), constant(0, 6, 0, 6)] });
});

test("dims that repeat are repeated in each part", () => {
  includes(onTwo({ op: "Expand", inputs: [drawn([6, 1]), constant(6, 12)] }), "whole, whole -> 1");
  const tiled = onTwo({ op: "Tile", inputs: [drawn([6, 5]), constant(2, 6)] });
  includes(tiled, "0, whole -> 0(6+6)", "whole, whole -> 0", "whole, whole -> 1");
});

test("triangles, ones, sizes and masks follow the part of a rank", () => {
  for (const upper of [0, 1]) {
    const inputs = [drawn([6, 6, 12]), { constant: tensorFrom("int64", [], [-2]) }];
    const found = onTwo({ op: "Trilu", attributes: { upper }, inputs });
    includes(found, "0, whole -> 0", "1, whole -> 1", "2, whole -> 2");
    onTwo({ op: "Trilu", attributes: { upper }, inputs: [drawn([12, 6])] });
  }
  includes(onTwo({ op: "EyeLike", attributes: { k: 2 }, inputs: [drawn([6, 12])] }), "0 -> 0");
  includes(onTwo({ op: "Shape", inputs: [drawn([6, 12])] }), "0 -> whole");
  includes(onTwo({ op: "Size", inputs: [drawn([6, 12])] }), "1 -> whole");
  includes(onTwo({ op: "ConstantOfShape", inputs: [constant(6, 5)] }), "whole -> 0");
  const mask = tensorFrom("bool", [6, 1], [1, 0, 1, 0, 0, 1]);
  const detached = onTwo({ op: "lockstep::Detach", inputs: [drawn([6, 12]), mask] });
  includes(detached, "0, 0 -> 0", "1, whole -> 1");
});

test("every operator of the family was divided, or says why it is not", () => {
  const ops = Object.values(layout).flatMap(({ name, divisions }) => {
    assert.ok(divisions !== undefined, `${name} has an answer`);
    return typeof divisions === "function" ? [name] : [];
  });
  assert.deepEqual([...tried].sort(), ops.sort());
});
