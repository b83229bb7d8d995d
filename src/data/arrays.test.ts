import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { checkRows, failure, readAll, XY } from "../../test/support/tables.ts";
import { writeSafetensors } from "../safetensors/index.ts";
import { tensorFrom } from "../tensor/index.ts";
import { npy, safetensors } from "./arrays.ts";
import { fileColumn, recordsOf } from "./columns.ts";

const ROWS = Array.from({ length: 20 }, (_, i) => i);
const X = tensorFrom(
  "float32",
  [20, 2],
  ROWS.flatMap((i) => [i, i / 2]),
);
const Y = tensorFrom("int64", [20], ROWS);

/** Returns a file as numpy.save writes it. */
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

test("npy: arrays of files are read, with both header versions", () =>
  withFolder(
    { "x.npy": npyFile("<f4", "(20, 2)", X.bytes), "d/y.npy": npyFile("<i8", "(20,)", Y.bytes, 2) },
    async (baseDir) => {
      checkRows(await readAll(npy({ x: "x.npy", y: "d/y.npy" }, { heldOut: 0 }), XY, baseDir), 20);
    },
  ));

test("npy: a file that is cut, foreign or in another order is refused by name", () =>
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

test("safetensors: only the tensors that the model needs are opened, and large ones are read by ranges", () =>
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
