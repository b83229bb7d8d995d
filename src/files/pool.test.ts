import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { truncate } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { FilePool } from "./pool.ts";

const FILES = Object.fromEntries(
  Array.from({ length: 12 }, (_, i) => [
    `f${i}`,
    Uint8Array.from({ length: 100 }, (__, at) => at + i),
  ]),
);

/** Returns the files below `folder` that this process has open. */
function openFiles(folder: string): number {
  return readdirSync("/proc/self/fd").filter((descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`).startsWith(folder);
    } catch {
      return false; // the file was closed meanwhile
    }
  }).length;
}

test(
  "many reads at once over more files than may be open",
  { skip: process.platform !== "linux" },
  () =>
    withFolder(FILES, async (folder) => {
      const pool = new FilePool(3);
      for (let round = 0; round < 3; round++) {
        await Promise.all(
          Array.from({ length: 200 }, async (_, k) => {
            const [file, offset] = [(k * 7) % 12, (k * 13) % 90];
            const bytes = new Uint8Array(10);
            await pool.read(join(folder, `f${file}`), offset, bytes);
            assert.deepEqual(
              [...bytes],
              Array.from({ length: 10 }, (__, at) => offset + at + file),
            );
          }),
        );
      }
      await pool.read(join(folder, "f0"), 0, new Uint8Array(1));
      assert.ok(openFiles(folder) <= 5, `${openFiles(folder)} files open`); // up to three may be open, and some are just being closed
      await pool.close();
    }),
);

test("a missing file, and one that became shorter, fail each time and leave the pool usable", () =>
  withFolder(FILES, async (folder) => {
    const pool = new FilePool();
    const bytes = new Uint8Array(50);
    for (let i = 0; i < 2; i++) {
      await assert.rejects(pool.read(join(folder, "none"), 0, bytes), { code: "FILE_NOT_FOUND" });
    }
    await pool.read(join(folder, "f1"), 40, bytes);
    await truncate(join(folder, "f1"), 60);
    await assert.rejects(pool.read(join(folder, "f1"), 40, bytes), {
      code: "FILE_CORRUPT",
      message: /ends at byte 60, but 30 more were expected/,
    });
    await pool.read(join(folder, "f1"), 10, bytes);
    assert.equal(bytes[0], 11);
    await pool.close();
  }));
