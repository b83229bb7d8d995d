import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LockstepError } from "../errors.ts";
import { writeFileAtomic } from "./atomic.ts";
import { fileError } from "./errors.ts";

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "lockstep-files-"));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test("content in pieces replaces the old file and leaves nothing else", () =>
  inFolder(async (folder) => {
    const path = join(folder, "deep", "report.json");
    await writeFileAtomic(path, "old");
    await writeFileAtomic(
      path,
      (async function* () {
        yield Buffer.from("new ");
        await Promise.resolve();
        yield Buffer.from("text");
      })(),
    );
    assert.equal(await readFile(path, "utf8"), "new text");
    assert.deepEqual(await readdir(join(folder, "deep")), ["report.json"]);
  }));

test("a failure in the middle keeps the old file and removes the unfinished one", () =>
  inFolder(async (folder) => {
    const path = join(folder, "weights.bin");
    await writeFile(path, "old");
    const failing = function* () {
      yield Buffer.from("half");
      throw Object.assign(new Error("write"), { code: "ENOSPC", syscall: "write" });
    };
    await assert.rejects(writeFileAtomic(path, failing()), (error: LockstepError) => {
      assert.ok(error instanceof LockstepError);
      assert.equal(error.code, "DISK_FULL");
      assert.match(error.message, /Cannot write ".*weights.bin": the disk is full/);
      return true;
    });
    assert.equal(await readFile(path, "utf8"), "old");
    assert.deepEqual(await readdir(folder), ["weights.bin"]);
  }));

test("a path through a file is an error that says so", () =>
  inFolder(async (folder) => {
    await writeFile(join(folder, "file"), "");
    await assert.rejects(writeFileAtomic(join(folder, "file", "x"), "y"), { code: "IO_FAILED" });
  }));

test("errors that are not the file system's pass unchanged", () => {
  const bug = new TypeError("no");
  assert.equal(fileError(bug, "read", "x"), bug);
});
