/** Files that could be read differently from what their authors meant. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inputsOf } from "../../test/support/batch.ts";
import { withFolder } from "../../test/support/folder.ts";
import { failure, readAll } from "../../test/support/tables.ts";
import { LockstepError } from "../errors.ts";
import { npy, safetensors } from "./arrays.ts";
import { csv, ratings } from "./csv.ts";
import { idxImages } from "./idx.ts";
import { jsonl } from "./jsonl.ts";
import { text } from "./text.ts";

const X = inputsOf({ x: ["float32", [1]] });

test("a table that can be read in two ways is refused with the line", async () => {
  const cases: readonly [string, string | Uint8Array, RegExp][] = [
    ["wide row", "x,y\n1,2\n3,4,000\n", /line 3: 3 cells, but 2 columns/],
    ["narrow row", "x,y\n1,2\n3\n", /line 3: 1 cells, but 2 columns/],
    ["name twice", "x,y,x\n1,2,3\n", /line 1: two columns are named "x"/],
    ["quote in a name", 'x,y"z\n1,2\n', /line 1: Invalid Opening Quote/],
    ["open quote in the header", 'x,"y\n1,2\n', /line 1: Quote Not Closed/],
    ["blank first line", "\nx,y\n1,2\n", /line 1: it is blank/],
    ["carriage returns after quotes", '"x","y"\r1,2\r', /line 1: lines end with a carriage return/],
    ["carriage returns", "x,y\r1,2\r3,4\r", /line 1: lines end with a carriage return alone/],
    ["UTF-16", Buffer.from("\ufeffx,y\n1,2\n", "utf16le"), /line 1: the text is UTF-16/],
    ["UTF-16 unmarked", Buffer.from("x,y\n1,2\n", "utf16le"), /line 1: the text is not UTF-8/],
    ["Latin-1", Buffer.from("x,y\n1,é\n", "latin1"), /line 2: the text is not UTF-8/],
    ["hexadecimal", "x,y\n0x10,2\n", /line 2: column "x" is "0x10", which is no number/],
    ["underscore", "x,y\n1_000,2\n", /line 2: column "x" is "1_000"/],
    ["empty cell", "x,y\n,2\n", /line 2: column "x" is "", which is no number/],
    ["infinity", "x,y\n1e999,2\n", /line 2: field "x" is Infinity/],
  ];
  for (const [what, content, expected] of cases) {
    await withFolder({ "d.csv": content }, async (baseDir) => {
      const error = await failure(readAll(csv("d.csv", { heldOut: 0 }), X, baseDir));
      assert.equal(error.code, "DATA_FORMAT", what);
      assert.match(error.message, expected, what);
    });
  }
});

test("the error for a word that is not a category lists the categories", () =>
  withFolder({ "d.csv": "x\nred\npink\n" }, async (baseDir) => {
    const source = csv("d.csv", { heldOut: 0, categories: { x: ["red", "blue"] } });
    const error = await failure(readAll(source, X, baseDir));
    assert.match(error.message, /line 3: column "x" is "pink", which is not one of its categories/);
  }));

test("the error for a file that is one JSON list says so", () =>
  withFolder({ "d.jsonl": '[{"x": 1}, {"x": 2}]\n' }, async (baseDir) => {
    const error = await failure(readAll(jsonl("d.jsonl"), X, baseDir));
    assert.match(error.message, /line 1: a list, not an object/);
  }));

test("an object that has a needed field twice is refused; strings and inner objects with that name are not", () =>
  withFolder(
    {
      "escaped.jsonl": '{"x": 1}\n{"x": 2, "\\u0078" : 3}\n',
      "twice.jsonl": '{"x": 1}\n{"x": 2, "note": "n", "x" : 3}\n',
      "once.jsonl": '{"x": 1, "note": "\\"x\\": 5", "inner": {"x": 7}, "list": ["x"]}\n',
    },
    async (baseDir) => {
      for (const file of ["twice.jsonl", "escaped.jsonl"]) {
        const own = await failure(readAll(jsonl(file, { heldOut: 0 }), X, baseDir));
        assert.match(own.message, /line 2: the object has two fields "x"/, file);
      }
      const error = await failure(readAll(jsonl("twice.jsonl", { heldOut: 0 }), X, baseDir));
      assert.equal(error.code, "DATA_FORMAT");
      assert.match(error.message, /"twice.jsonl", line 2: the object has two fields "x"/);
      const { x } = await readAll(jsonl("once.jsonl", { heldOut: 0 }), X, baseDir);
      assert.deepEqual(x, [1]);
    },
  ));

test("each of several globs must match a file", () =>
  withFolder({ "a/1.csv": "x\n1\n", "b/1.csv": "x\n2\n" }, async (baseDir) => {
    const read = (...globs: string[]) => readAll(csv(globs, { heldOut: 0 }), X, baseDir);
    assert.equal((await read("a/*.csv", "b/*.csv", "!c/*.csv"))["x"]?.length, 2);
    const error = await failure(read("a/*.csv", "c/*.csv"));
    assert.equal(error.code, "DATA_EMPTY");
    assert.match(error.message, /No file matches "c\/\*\.csv"/);
  }));

test("a number that is not a boolean does not become one", () =>
  withFolder({ "d.csv": "x\n1\n2\n" }, async (baseDir) => {
    const inputs = inputsOf({ x: ["bool", [1]] });
    const error = await failure(readAll(csv("d.csv", { heldOut: 0 }), inputs, baseDir));
    assert.match(error.message, /line 3: .*holds 2, which bool cannot/);
  }));

test("undefined paths and unknown options are refused where they are stated", () => {
  const unset = undefined as unknown as string;
  const cases: readonly (() => unknown)[] = [
    () => csv(unset),
    () => csv(["a.csv", unset]),
    () => csv([]),
    () => ratings(""),
    () => text(unset),
    () => jsonl(unset),
    () => npy({ x: unset }),
    () => safetensors(unset),
    () => idxImages({ images: "a", labels: unset }),
    () => csv("a.csv", { heldout: 0.1 } as object),
    () => text("a.txt", { separator: "," } as object),
  ];
  for (const make of cases) {
    assert.throws(make, (error) => {
      assert(error instanceof LockstepError);
      assert.equal(error.code, "INVALID_OPTION");
      return true;
    });
  }
});
