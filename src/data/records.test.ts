import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { inputsOf, readSamples } from "../../test/support/batch.ts";
import { digits, movieRatings } from "../../test/support/data.ts";
import { withFolder } from "../../test/support/folder.ts";
import type { LockstepError } from "../errors.ts";
import { writeSafetensors } from "../safetensors/index.ts";
import { DTYPES, type DType, tensorFrom } from "../tensor/index.ts";
import { arrays, npy, safetensors } from "./arrays.ts";
import { fileColumn, recordsOf } from "./columns.ts";
import { csv, ratings } from "./csv.ts";
import { idxImages } from "./idx.ts";
import { jsonl } from "./jsonl.ts";
import { type DataSource, openData } from "./open.ts";
import type { ModelInput } from "./source.ts";

function failure(promise: Promise<unknown>): Promise<LockstepError> {
  return promise.then(
    () => assert.fail("it should have failed"),
    (error: LockstepError) => error,
  );
}

const ascending = (a: number, b: number): number => a - b;

/** All samples for training, as numbers. */
async function readAll(
  source: DataSource,
  inputs: readonly ModelInput[],
  baseDir: string,
): Promise<Record<string, number[]>> {
  const dataset = await openData(source, { inputs, baseDir });
  try {
    return await readSamples(dataset.train, inputs, [...Array(dataset.train.length).keys()]);
  } finally {
    await dataset.close();
  }
}

const XY = inputsOf({ x: ["float32", [1, 2]], y: ["int32", [1]] });

/** Rows 0, 1, 2 … of x = [i, i / 2], y = i, in any order, from which every source is checked alike. */
function checkRows({ x, y }: Record<string, number[]>, rows: number): void {
  assert.deepEqual(
    [...(y ?? [])].sort((a, b) => a - b),
    Array.from({ length: rows }, (_, i) => i),
  );
  assert.deepEqual(
    x,
    y?.flatMap((i) => [i, i / 2]),
  );
}

const ROWS = Array.from({ length: 20 }, (_, i) => i);
const X = tensorFrom(
  "float32",
  [20, 2],
  ROWS.flatMap((i) => [i, i / 2]),
);
const Y = tensorFrom("int64", [20], ROWS);

test("arrays in memory: rows are held out, all others are trained on, none twice", async () => {
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

test("only the fields that are asked for are read", async () => {
  const dataset = await openData(arrays({ x: X, y: Y, z: Y }), { inputs: XY, baseDir: "." });
  const { y, ...others } = await readSamples(dataset.train, XY.slice(1), [0, 0, 5]);
  assert.equal(y?.[0], y?.[1]);
  assert.deepEqual(others, {});
});

test("any element type feeds any that can hold its values", () => {
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

/** As numpy.save writes it. */
function npyFile(descr: string, shape: string, data: Uint8Array, version = 1): Buffer {
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const start = version === 1 ? 10 : 12;
  const padded = header.padEnd(Math.ceil((start + header.length + 1) / 64) * 64 - start - 1) + "\n";
  const length = Buffer.alloc(start - 8);
  if (version === 1) length.writeUInt16LE(padded.length);
  else length.writeUInt32LE(padded.length);
  return Buffer.concat([
    Buffer.from([0x93]),
    Buffer.from("NUMPY"),
    Buffer.from([version, 0]),
    length,
    Buffer.from(padded),
    data,
  ]);
}

test("npy: arrays of files, of both header versions", () =>
  withFolder(
    { "x.npy": npyFile("<f4", "(20, 2)", X.bytes), "d/y.npy": npyFile("<i8", "(20,)", Y.bytes, 2) },
    async (baseDir) => {
      checkRows(await readAll(npy({ x: "x.npy", y: "d/y.npy" }, { heldOut: 0 }), XY, baseDir), 20);
    },
  ));

test("npy: what is cut, foreign, or of another order is named", () =>
  withFolder(
    {
      "cut.npy": npyFile("<f4", "(20, 2)", X.bytes.subarray(1)),
      "no.npy": "hello, I am no array at all",
      "empty.npy": "",
      "big.npy": npyFile(">f4", "(20, 2)", X.bytes),
      "absurd.npy": npyFile("<f4", "(99999999, 99999999, 99999)", X.bytes),
      "short.npy": npyFile("<f4", "(10, 4)", X.bytes),
      "y.npy": npyFile("<i8", "(20,)", Y.bytes),
      "order.npy": Buffer.from(
        npyFile("<f4", "(20, 2)", X.bytes).toString("latin1").replace("False", "True "),
        "latin1",
      ),
    },
    async (baseDir) => {
      const codeOf = async (file: string) =>
        (await failure(readAll(npy({ x: file, y: "y.npy" }), XY, baseDir))).code;
      assert.equal(await codeOf("cut.npy"), "FILE_CORRUPT");
      assert.equal(await codeOf("no.npy"), "FILE_CORRUPT");
      assert.equal(await codeOf("empty.npy"), "FILE_CORRUPT");
      assert.equal(await codeOf("absurd.npy"), "FILE_CORRUPT");
      assert.equal(await codeOf("big.npy"), "DATA_FORMAT");
      assert.equal(await codeOf("order.npy"), "DATA_FORMAT");
      assert.equal(await codeOf("short.npy"), "DATA_FORMAT"); // 10 samples, but y has 20
      assert.equal(await codeOf("none.npy"), "FILE_NOT_FOUND");
    },
  ));

test("safetensors: only what the model needs is opened, large arrays by ranges", () =>
  withFolder({}, async (baseDir) => {
    const path = join(baseDir, "data.safetensors");
    await writeSafetensors(
      path,
      new Map([
        ["x", X],
        ["label", Y],
        ["other", tensorFrom("float32", [], [1])],
      ]),
    );
    const source = safetensors("data.safetensors", { heldOut: 0, fields: { y: "label" } });
    checkRows(await readAll(source, XY, baseDir), 20);
    const error = await failure(readAll(safetensors("data.safetensors"), XY, baseDir));
    assert.match(error.message, /needs a field "y".*\n.*"label" int64\[20\]/s);
    const column = await fileColumn(path, { dtype: "float32", shape: [20, 2] }, 512, 10);
    await column.close();
  }));

test("an array read by ranges gives the same rows as one in memory", () =>
  withFolder({ "raw.bin": Buffer.concat([Buffer.alloc(7), X.bytes]) }, async (baseDir) => {
    const path = join(baseDir, "raw.bin");
    for (const limit of [10, 10_000]) {
      const records = recordsOf({ x: await fileColumn(path, X, 7, limit) }, "x");
      const x = new Uint8Array(3 * 8);
      await records.read([19, 0, 7], { x });
      assert.deepEqual([...new Float32Array(x.buffer)], [19, 9.5, 0, 0, 7, 3.5]);
      await records.close();
    }
  }));

test("csv: columns by name, several files, quotes, blank lines, any line ends", () =>
  withFolder(
    {
      "a.csv": `a,b,"the, y",note\r\n${ROWS.slice(0, 10)
        .map((i) => `${i},${i / 2},${i},"a ""word"",\nand ${i}"\r\n`)
        .join("\r\n")}`,
      "b.csv": `\ufeffa,b,"the, y",note\n${ROWS.slice(10)
        .map((i) => ` ${i} , "${i / 2}",${i},none`)
        .join("\n")}`,
    },
    async (baseDir) => {
      const source = csv("*.csv", { heldOut: 0, columns: { x: ["a", "b"], y: "the, y" } });
      checkRows(await readAll(source, XY, baseDir), 20);
    },
  ));

test("csv: words stand for numbers where told; other words are errors with file and line", () =>
  withFolder(
    {
      "iris.csv": "width,kind\n1,setosa\n\n2,virginica\n3,setosa\n",
      "bad.csv": "width,kind\n1,2\nwide,2\n",
    },
    async (baseDir) => {
      const inputs = inputsOf({ width: ["float64", [1]], kind: ["int64", [1]] });
      const categories = { kind: ["setosa", "virginica"] };
      const read = await readAll(csv("iris.csv", { heldOut: 0, categories }), inputs, baseDir);
      const pairs = read["width"]?.map((width, i) => [width, read["kind"]?.[i]]);
      assert.deepEqual(pairs?.sort(), [
        [1, 0],
        [2, 1],
        [3, 0],
      ]);
      const word = await failure(readAll(csv("iris.csv", { heldOut: 0 }), inputs, baseDir));
      assert.equal(word.code, "DATA_FORMAT");
      const bad = await failure(readAll(csv("bad.csv", { heldOut: 0 }), inputs, baseDir));
      assert.match(bad.message, /"bad.csv", line 3: column "width" is "wide", which is no number/);
      const header = await failure(
        readAll(csv("*.csv", { columns: { x: "hight" } }), inputs, baseDir),
      );
      assert.match(header.message, /no column "hight".*\n.*"width", "kind"/s);
      const fraction = csv("iris.csv", { heldOut: 0, categories, header: ["width", "kind"] });
      assert.match(
        (await failure(readAll(fraction, inputs, baseDir))).message,
        /line 1: column "width"/,
      );
    },
  ));

test("csv: a quote that is never closed, files of other columns, and no rows", () =>
  withFolder(
    {
      "open.csv": 'a,b\n1,"2\n3,4\n',
      "a.csv": "a,b\n1,2\n",
      "c.csv": "a,c\n1,2\n",
      "head.csv": "a,b\n",
    },
    async (baseDir) => {
      const inputs = inputsOf({ a: ["float32", [1]] });
      const read = (glob: string) => failure(readAll(csv(glob), inputs, baseDir));
      assert.match((await read("open.csv")).message, /"open.csv": a quoted text is never closed/);
      assert.match(
        (await read("[ac].csv")).message,
        /"c.csv" has the columns a, c, but "a.csv" has a, b/,
      );
      assert.equal((await read("head.csv")).code, "DATA_EMPTY");
    },
  ));

test("csv: any table of numbers comes back", () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.integer()), {
        minLength: 1,
        maxLength: 30,
      }),
      fc.constantFrom("\n", "\r\n", "\n\n"),
      (rows, end) =>
        withFolder(
          { "t.csv": `v,i${end}${rows.map((row) => row.join(",")).join(end)}` },
          async (baseDir) => {
            const inputs = inputsOf({ v: ["float64", [1]], i: ["int64", [1]] });
            const read = await readAll(csv("t.csv", { heldOut: 0 }), inputs, baseDir);
            const key = (row: readonly unknown[]) =>
              row.map((value) => (Object.is(value, -0) ? 0 : value)).join();
            const got = read["v"]?.map((v, index) => key([v, read["i"]?.[index]])).sort();
            assert.deepEqual(got, rows.map(key).sort());
          },
        ),
    ),
    { numRuns: 30 },
  ));

test("jsonl: numbers, lists and truth values of each object", () =>
  withFolder(
    {
      "a.jsonl": `${ROWS.slice(0, 9)
        .map((i) => JSON.stringify({ x: [i, i / 2], y: i, note: "n" }))
        .join("\n")}\n\n`,
      "b.jsonl": ROWS.slice(9)
        .map((i) => JSON.stringify({ y: i, x: [i, i / 2], ok: true }))
        .join("\r\n"),
    },
    async (baseDir) => checkRows(await readAll(jsonl("*.jsonl", { heldOut: 0 }), XY, baseDir), 20),
  ));

test("jsonl: a line that differs, or is no JSON, is named", () =>
  withFolder(
    {
      "shape.jsonl": '{"x":[1,2],"y":1}\n\n{"x":[1,2,3],"y":1}',
      "json.jsonl": '{"x":[1,2],"y":1}\n{"x":',
      "list.jsonl": "[1,2]",
      "word.jsonl": '{"x":"one","y":1}',
      "blank.jsonl": "\n\n",
    },
    async (baseDir) => {
      const read = (file: string) => failure(readAll(jsonl(file, { heldOut: 0 }), XY, baseDir));
      assert.match(
        (await read("shape.jsonl")).message,
        /"shape.jsonl", line 3: field "x" is of shape \[3\]; the first line's is of shape \[2\]/,
      );
      assert.match((await read("json.jsonl")).message, /"json.jsonl", line 2: not JSON/);
      assert.match((await read("list.jsonl")).message, /line 1: a list.*, not an object/);
      assert.match(
        (await read("word.jsonl")).message,
        /needs a field "x".*\n.*"y" \(number\[\]\)/s,
      );
      assert.equal((await read("blank.jsonl")).code, "DATA_EMPTY");
    },
  ));

test("jsonl: texts are documents for a language model", () => {
  const texts = Array.from(
    { length: 50 },
    (_, i) => `Text number ${i}, é, of some length.\nAnd its second line ${i * i}.`,
  );
  return withFolder(
    { "t.jsonl": [...texts, texts[3] ?? ""].map((body) => JSON.stringify({ body })).join("\n") },
    async (baseDir) => {
      const inputs = inputsOf({ ids: ["int32", [1, 16]], targets: ["int32", [1, 16]] });
      const source = jsonl("t.jsonl", { text: "body", heldOut: 0.1 });
      const dataset = await openData(source, { inputs, baseDir });
      const bytes = [...texts].reduce((sum, body) => sum + Buffer.byteLength(body) + 1, 0);
      assert.equal(
        (dataset.text?.train.byteLength ?? 0) + (dataset.text?.validation?.byteLength ?? 0),
        bytes,
      );
      const error = await failure(
        openData(jsonl("t.jsonl", { text: "text" }), { inputs, baseDir }),
      );
      assert.match(error.message, /line 1: field "text" is missing, not a text/);
    },
  );
});

/** IDX: zeros, type, dims, sizes. */
function idxFile(shape: readonly number[], data: Uint8Array, type = 8): Buffer {
  const header = Buffer.alloc(4 + 4 * shape.length);
  header[2] = type;
  header[3] = shape.length;
  for (const [dim, size] of shape.entries()) header.writeUInt32BE(size, 4 + 4 * dim);
  return Buffer.concat([header, data]);
}

test("idx: images scale to 0 … 1 for floats and stay bytes for integers, plain or gzipped, flat or not", () =>
  withFolder(
    {
      images: idxFile([3, 2, 2], Uint8Array.of(0, 51, 102, 255, 1, 2, 3, 4, 5, 6, 7, 8)),
      "labels.gz": gzipSync(idxFile([3], Uint8Array.of(0, 1, 2))),
    },
    async (baseDir) => {
      const source = idxImages({ images: "images", labels: "labels.gz" }, { heldOut: 0 });
      const floats = inputsOf({ image: ["float32", [1, 1, 2, 2]], label: ["int32", [1]] });
      const { image = [], label = [] } = await readAll(source, floats, baseDir);
      const first = image.slice(4 * label.indexOf(0)).slice(0, 4);
      assert.deepEqual(first, [0, 0.2, 0.4, 1].map(Math.fround));
      const bytes = inputsOf({ image: ["uint8", [1, 4]], label: ["int64", [1]] });
      const flat = await readAll(source, bytes, baseDir);
      assert.deepEqual(
        flat["image"]?.sort((a, b) => a - b),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 51, 102, 255],
      );
    },
  ));

test("idx: cut, unzippable, foreign and uneven files are named", () =>
  withFolder(
    {
      good: idxFile([3, 2, 2], new Uint8Array(12)),
      labels: idxFile([3], new Uint8Array(3)),
      two: idxFile([2], new Uint8Array(2)),
      cut: idxFile([3, 2, 2], new Uint8Array(11)),
      zip: gzipSync(idxFile([3, 2, 2], new Uint8Array(12))).subarray(0, 20),
      no: "what?",
      floats: idxFile([3], new Uint8Array(12), 0x0d),
    },
    async (baseDir) => {
      const inputs = inputsOf({ image: ["float32", [1, 2, 2]], label: ["int32", [1]] });
      const codeOf = async (images: string, labels = "labels") =>
        (await failure(readAll(idxImages({ images, labels }), inputs, baseDir))).code;
      assert.equal(await codeOf("cut"), "FILE_CORRUPT");
      assert.equal(await codeOf("zip"), "FILE_CORRUPT");
      assert.equal(await codeOf("no"), "FILE_CORRUPT");
      assert.equal(await codeOf("floats"), "DATA_FORMAT");
      assert.equal(await codeOf("good", "two"), "DATA_FORMAT");
      assert.equal(await codeOf("absent"), "FILE_NOT_FOUND");
    },
  ));

test("shapes and types that do not fit are refused, with both sides in the sentence", async () => {
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

test("ratings are read as MovieLens writes them", () =>
  withFolder({ "u.data": "196\t242\t3\t881250949\n186\t302\t4\t891717742\n" }, async (baseDir) => {
    const inputs = inputsOf({
      user: ["int32", [1]],
      rating: ["float32", [1]],
      time: ["int64", [1]],
    });
    const read = await readAll(ratings("u.data", { heldOut: 0 }), inputs, baseDir);
    assert.deepEqual(
      read["user"]?.map((user, i) => [user, read["rating"]?.[i], read["time"]?.[i]]).sort(),
      [
        [186, 4, 891717742],
        [196, 3, 881250949],
      ],
    );
  }));
