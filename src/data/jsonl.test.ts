import assert from "node:assert/strict";
import { test } from "node:test";
import { inputsOf } from "../../test/support/batch.ts";
import { withFolder } from "../../test/support/folder.ts";
import { checkRows, failure, readAll, XY } from "../../test/support/tables.ts";
import { jsonl } from "./jsonl.ts";
import { openData } from "./open.ts";

const ROWS = Array.from({ length: 20 }, (_, i) => i);

test("jsonl: numbers, lists and booleans of each object become fields", () =>
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

test("jsonl: a line that differs or is not JSON is refused by name", () =>
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
