import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { LockstepError } from "../errors.ts";
import {
  byteLength,
  DTYPES,
  type DType,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../tensor/index.ts";
import { parseSafetensors, readSafetensors, readSafetensorsHeader } from "./read.ts";
import { weightsSha256, writeSafetensors } from "./write.ts";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "lockstep-safetensors-"));
});
after(() => rm(folder, { recursive: true }));

const anyTensor: fc.Arbitrary<Tensor> = fc
  .record({
    dtype: fc.constantFrom(...(Object.keys(DTYPES) as DType[])),
    shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    seed: fc.integer({ min: 0, max: 255 }),
  })
  .map(({ dtype, shape, seed }) => {
    const bytes = Uint8Array.from(
      { length: byteLength({ dtype, shape }) },
      (_, i) => (i * 7 + seed) % 256,
    );
    return { dtype, shape, bytes };
  });

test("a written file is read whole, in place, and by its header", () =>
  fc.assert(
    fc.asyncProperty(
      fc.dictionary(fc.string({ unit: "binary", minLength: 1, maxLength: 12 }), anyTensor, {
        maxKeys: 6,
      }),
      fc.dictionary(fc.string({ maxLength: 5 }), fc.string({ maxLength: 5 }), { maxKeys: 2 }),
      async (record, metadata) => {
        const path = join(folder, "any.safetensors");
        const tensors = new Map(Object.entries(record));
        await writeSafetensors(path, tensors, metadata);
        const bytes = new Uint8Array(await readFile(path));
        for (const content of [await readSafetensors(path), parseSafetensors(bytes, path)]) {
          assert.deepEqual({ ...content.metadata }, { ...metadata });
          assert.equal(content.tensors.size, tensors.size);
          for (const [name, { dtype, shape, bytes: expected }] of tensors) {
            const actual = content.tensors.get(name);
            assert.deepEqual([actual?.dtype, actual?.shape], [dtype, shape]);
            assert.deepEqual(Buffer.from(actual?.bytes ?? []), Buffer.from(expected));
          }
        }
        for (const { start, dtype } of (await readSafetensorsHeader(path)).entries) {
          assert.equal(start % DTYPES[dtype].bytes, 0, "aligned to its element");
        }
      },
    ),
    { numRuns: 25 },
  ));

test("a file of the reference writer is read", () => {
  // This is what safetensors 0.8.0 writes for save({"b": float32 [1.5, -2], "a": int64 [[3]]},
  // metadata={"k": "v"}).
  const header = `{"__metadata__":{"k":"v"},"a":{"dtype":"I64","shape":[1,1],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`;
  const padded = Buffer.from(header.padEnd(Math.ceil(header.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const data = Buffer.concat([
    tensorFrom("int64", [1], [3]).bytes,
    tensorFrom("float32", [2], [1.5, -2]).bytes,
  ]);
  const { tensors, metadata } = parseSafetensors(Buffer.concat([length, padded, data]), "x");
  assert.deepEqual(metadata, { k: "v" });
  assert.deepEqual(toNumbers(tensors.get("b") as Tensor), [1.5, -2]);
  assert.deepEqual(tensors.get("a")?.shape, [1, 1]);
});

test("views are not copies", () => {
  const bytes = new Uint8Array(8 + 64 + 4);
  const header = `{"x":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}`.padEnd(64);
  new DataView(bytes.buffer).setBigUint64(0, 64n, true);
  bytes.set(Buffer.from(header), 8);
  const tensor = parseSafetensors(bytes, "x").tensors.get("x") as Tensor;
  bytes[72] = 9;
  assert.deepEqual(toNumbers(tensor), [9]);
});

test("garbage, cut and changed files give FILE_CORRUPT and nothing else", async () => {
  const path = join(folder, "good.safetensors");
  await writeSafetensors(path, new Map([["weight", tensorFrom("float32", [2, 2], [1, 2, 3, 4])]]));
  const good = new Uint8Array(await readFile(path));
  const refuses = (bytes: Uint8Array) => {
    try {
      parseSafetensors(bytes, "bad.safetensors");
    } catch (error) {
      assert.ok(error instanceof LockstepError && error.code === "FILE_CORRUPT", String(error));
    }
  };
  for (let length = 0; length < good.length; length++) {
    assert.throws(() => parseSafetensors(good.subarray(0, length), "cut"), {
      code: "FILE_CORRUPT",
    });
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), refuses));
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), (at, value) => {
      const changed = Uint8Array.from(good);
      changed[at] = value;
      refuses(changed);
    }),
    { numRuns: 500 },
  );
  await writeFile(join(folder, "cut.safetensors"), good.subarray(0, good.length - 1));
  await assert.rejects(readSafetensors(join(folder, "cut.safetensors")), { code: "FILE_CORRUPT" });
  await assert.rejects(readSafetensors(join(folder, "none")), { code: "FILE_NOT_FOUND" });
});

test("a header that claims overlapping tensors, or gigabytes, is refused before anything is allocated", () => {
  const file = (header: string, dataBytes: number) => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    return Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]);
  };
  const bad = [
    `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`,
    `{"a":{"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,12]}}`,
    `{"a":{"dtype":"F32","shape":[-3],"data_offsets":[0,12]}}`,
    `{"a":{"dtype":"F8_E4M3","shape":[12],"data_offsets":[0,12]}}`,
    `{"a":{"dtype":"F32","shape":[3],"data_offsets":[12,0]}}`,
    `{"a":null}`,
    `[]`,
    `{"__metadata__":{"k":1},"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}`,
  ];
  for (const header of bad) {
    assert.throws(
      () => parseSafetensors(file(header, 12), "bad"),
      { code: "FILE_CORRUPT" },
      header,
    );
  }
});

test("the hash is over the bytes in the order of the names", () => {
  const a = tensorFrom("uint8", [2], [1, 2]);
  const b = tensorFrom("uint8", [1], [3]);
  const expected = createHash("sha256")
    .update(Buffer.from([1, 2, 3]))
    .digest("hex");
  assert.equal(
    weightsSha256(
      new Map([
        ["b", b],
        ["a", a],
      ]),
    ),
    expected,
  );
  assert.equal(
    weightsSha256(
      new Map([
        ["a", a],
        ["b", b],
      ]),
    ),
    expected,
  );
});
