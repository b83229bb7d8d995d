import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { inputsOf, readSamples } from "../../test/support/batch.ts";
import { digits, movieRatings } from "../../test/support/data.ts";
import { checkRows, failure, readAll, XY } from "../../test/support/tables.ts";
import { DTYPES, type DType, tensorFrom } from "../tensor/index.ts";
import { arrays } from "./arrays.ts";
import { openData } from "./open.ts";
import type { ModelInput } from "./source.ts";

const ascending = (a: number, b: number): number => a - b;

const ROWS = Array.from({ length: 20 }, (_, i) => i);
const X = tensorFrom(
  "float32",
  [20, 2],
  ROWS.flatMap((i) => [i, i / 2]),
);
const Y = tensorFrom("int64", [20], ROWS);

test("arrays in memory: some rows are held out, all others are trained on, none is used twice", async () => {
  const dataset = await openData(arrays({ x: X, y: Y }), { inputs: XY, baseDir: "." });
  assert.equal(dataset.train.length, 18);
  assert.equal(dataset.validation?.length, 2);
  const train = await readSamples(dataset.train, XY, [...Array(18).keys()]);
  const held = await readSamples(dataset.validation, XY, [0, 1]);
  checkRows(
    {
      x: [...(train["x"] ?? []), ...(held["x"] ?? [])],
      y: [...(train["y"] ?? []), ...(held["y"] ?? [])],
    },
    20,
  );
  assert.equal(dataset.summary, "20 rows of arrays(x, y), 2 held out");
});

test("only the requested fields are read", async () => {
  const dataset = await openData(arrays({ x: X, y: Y, z: Y }), { inputs: XY, baseDir: "." });
  const { y, ...others } = await readSamples(dataset.train, XY.slice(1), [0, 0, 5]);
  assert.equal(y?.[0], y?.[1]);
  assert.deepEqual(others, {});
});

test("any element type feeds any type that can hold its values", () => {
  const types = Object.keys(DTYPES) as DType[];
  return fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...types),
      fc.constantFrom(...types),
      fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 3, maxLength: 9 }),
      async (from, to, values) => {
        const inputs = inputsOf({ x: [to, [1]] });
        const read = readAll(
          arrays({ x: tensorFrom(from, [values.length], values) }, { heldOut: 0 }),
          inputs,
          ".",
        );
        if (DTYPES[from].kind === "float" && DTYPES[to].kind !== "float") {
          assert.equal((await failure(read)).code, "DATA_FORMAT");
          return;
        }
        assert.deepEqual((await read)["x"]?.sort(ascending), [...values].sort(ascending));
      },
    ),
  );
});

test("an integer that the model's type cannot hold is refused, not wrapped around", async () => {
  const source = arrays({ y: tensorFrom("int64", [1], [2 ** 40]) }, { heldOut: 0 });
  const error = await failure(readAll(source, inputsOf({ y: ["int32", [1]] }), "."));
  assert.match(error.message, /field "y" holds 1099511627776, which int32 cannot/);
});

test("shapes and types that do not fit are refused, and the error names both sides", async () => {
  const source = arrays({ x: X, y: Y }, { heldOut: 0 });
  const open = (inputs: readonly ModelInput[], batch?: number) =>
    failure(openData(source, { inputs, baseDir: ".", ...(batch === undefined ? {} : { batch }) }));
  const shape = await open(inputsOf({ x: ["float32", [4, 3]] }));
  assert.match(
    shape.message,
    /input "x" is float32\[4, 3\], a sample of \[3\]; field "x" of arrays\(x, y\) is float32\[2\] a sample/,
  );
  const type = await open(inputsOf({ x: ["int32", [4, 2]] }));
  assert.match(type.message, /Floats do not feed integers/);
  assert.match((await open(inputsOf({ x: ["float32", []] }))).message, /"x" is a scalar/);
  const small = await open(XY, 64);
  assert.equal(small.code, "DATA_TOO_SMALL");
  assert.match(small.message, /A batch is 64 samples, but arrays\(x, y\) has only 20 to train on/);
  const uneven = arrays({ x: X, y: tensorFrom("int64", [3], [1, 2, 3]) });
  assert.match(
    (await failure(openData(uneven, { inputs: XY, baseDir: "." }))).message,
    /"x" has 20 samples, but "y" has 3/,
  );
});

test("real digits and ratings, or their stand-ins, open and have the fields that models name", async () => {
  const image = inputsOf({ image: ["float32", [8, 1, 28, 28]], label: ["int32", [8]] });
  const pictures = await readSamples(
    (await openData(digits().source, { inputs: image, baseDir: "." })).train,
    image,
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
  assert.ok(pictures["image"]?.every((pixel) => pixel >= 0 && pixel <= 1));
  assert.ok(pictures["label"]?.every((label) => label >= 0 && label <= 9));
  const rating = inputsOf({ user: ["int32", [8]], item: ["int32", [8]], rating: ["float32", [8]] });
  const films = await readSamples(
    (await openData(movieRatings().source, { inputs: rating, baseDir: "." })).train,
    rating,
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
  assert.ok(films["rating"]?.every((stars) => stars >= 1 && stars <= 5));
});
