import assert from "node:assert/strict";
import { test } from "node:test";
import { inputsOf } from "../../test/support/batch.ts";
import { withFolder } from "../../test/support/folder.ts";
import { failure, readAll } from "../../test/support/tables.ts";
import { tensorFrom } from "../tensor/index.ts";
import { arrays } from "./arrays.ts";
import { csv } from "./csv.ts";
import { jsonl } from "./jsonl.ts";
import { openData } from "./open.ts";
import type { ModelInput, ValueRange } from "./source.ts";
import { text } from "./text.ts";

const ascending = (a: number, b: number): number => a - b;
const CLASSES: ValueRange = { low: 0, high: 2, except: [-7] };
const LABELS: readonly ModelInput[] = inputsOf({ label: ["int32", [1]] }).map((input) => ({
  ...input,
  ranges: [CLASSES],
}));

async function told(read: Promise<unknown>): Promise<string> {
  const { code, message } = await failure(read);
  assert.equal(code, "DATA_FORMAT");
  return message;
}

test("a class outside its range is refused when data is opened, with file, line, field and limits", () =>
  withFolder(
    { "d.csv": "label\n0\n2\n-7\n\n3\n", "d.jsonl": '{"label": 0}\n{"label": -1}\n' },
    async (baseDir) => {
      const open = (source: Parameters<typeof openData>[0]) =>
        told(openData(source, { inputs: LABELS, baseDir, batch: 1 }));
      assert.match(
        await open(csv("d.csv")),
        /"d.csv", line 6: field "label" is 3; .*whole numbers from 0 to 2, and -7\./,
      );
      assert.match(await open(jsonl("d.jsonl")), /"d.jsonl", line 2: field "label" is -1/);
      const label = tensorFrom("int64", [4], [0, 1, 2, 9]);
      assert.match(await open(arrays({ label })), /row 3 \(counted from 0\): field "label" is 9/);
    },
  ));

test("numbers within the range and ignored numbers are read", () =>
  withFolder({ "d.csv": "label\n0\n2\n-7\n1\n" }, async (baseDir) => {
    const { label } = await readAll(csv("d.csv", { heldOut: 0 }), LABELS, baseDir);
    assert.deepEqual(label?.sort(ascending), [-7, 0, 1, 2]);
  }));

test("each element of a sample has a range of its own", async () => {
  const inputs = inputsOf({ ids: ["int32", [1, 2]] }).map((input) => ({
    ...input,
    ranges: [{ low: 0, high: 1, except: [] }, undefined],
  }));
  const source = (numbers: number[]) =>
    arrays({ ids: tensorFrom("int32", [2, 2], numbers) }, { heldOut: 0 });
  const { ids } = await readAll(source([0, 99, 1, -5]), inputs, ".");
  assert.deepEqual(ids?.sort(ascending), [-5, 0, 1, 99]);
  assert.match(
    await told(readAll(source([0, 99, 2, 0]), inputs, ".")),
    /row 1 .*\(element 0 of the sample\) is 2/,
  );
});

test("the error for a number that is not finite names its sample", () => {
  const x = tensorFrom("float32", [3, 2], [1, 2, 3, 4, 5, Number.NaN]);
  const read = readAll(arrays({ x }, { heldOut: 0 }), inputsOf({ x: ["float32", [1, 2]] }), ".");
  return told(read).then((message) => assert.match(message, /row 2 .*element 1 .* is NaN/));
});

test("integers up to 2^53 feed int64, and the error for others names their row", () =>
  withFolder({ "d.csv": "n\n9007199254740991\n", "bad.csv": "n\n1\n1.5\n" }, async (baseDir) => {
    const inputs = inputsOf({ n: ["int64", [1]] });
    const { n } = await readAll(csv("d.csv", { heldOut: 0 }), inputs, baseDir);
    assert.deepEqual(n, [2 ** 53 - 1]);
    assert.match(
      await told(readAll(csv("bad.csv", { heldOut: 0 }), inputs, baseDir)),
      /"bad.csv", line 3: The field "n" holds 1.5/,
    );
  }));

test("a tokenizer with more ids than the model's vocabulary is refused when data is opened", () =>
  withFolder({ "a.txt": "only ASCII here, and enough of it\n".repeat(4) }, async (baseDir) => {
    const inputs = inputsOf({ ids: ["int32", [1, 8]] }).map((input) => ({
      ...input,
      ranges: [{ low: 0, high: 99, except: [] }],
    }));
    assert.match(
      await told(openData(text("a.txt"), { inputs, baseDir })),
      /the tokenizer has 256 ids, but the model's input "ids" takes whole numbers from 0 to 99/,
    );
  }));
