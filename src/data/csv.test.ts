import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { inputsOf } from "../../test/support/batch.ts";
import { withFolder } from "../../test/support/folder.ts";
import { checkRows, failure, readAll, XY } from "../../test/support/tables.ts";
import { csv, ratings } from "./csv.ts";

const ROWS = Array.from({ length: 20 }, (_, i) => i);

test("csv: columns are found by name in several files, with quotes, blank lines and any line ends", () =>
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

test("csv: words become numbers if categories are given, else the error names file and line", () =>
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

test("csv: names of columns may hold line breaks and be many", () => {
  const many = Array.from({ length: 30_000 }, (_, at) => `column ${at}`);
  const files = {
    "lines.csv": 'a,"the\r\nwidth",b\r\n1,2,3\r\n',
    "many.csv": `${many.join(",")},"the\r\nwidth"\n${many.map(() => 0).join(",")},2\n`,
  };
  return withFolder(files, async (baseDir) => {
    const inputs = inputsOf({ "the\r\nwidth": ["float32", [1]] });
    for (const file of Object.keys(files)) {
      const read = await readAll(csv(file, { heldOut: 0 }), inputs, baseDir);
      assert.deepEqual(read["the\r\nwidth"], [2], file);
    }
  });
});

test("csv: an open quote, files with different columns, and a file without rows are refused", () =>
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

test("csv: any table of numbers is read back", () =>
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

test("ratings are read in MovieLens's format", () =>
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
