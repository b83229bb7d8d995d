import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { inputsOf } from "../../test/support/batch.ts";
import { withFolder } from "../../test/support/folder.ts";
import { failure, readAll } from "../../test/support/tables.ts";
import { idxImages } from "./idx.ts";

/** Returns an IDX file: zeros, type, dims, sizes, data. */
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

test("idx: a file that is cut, cannot be unzipped, is foreign or of a different length is refused by name", () =>
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
