/** Other users of the machine put files beside those of a run. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { allocateMemory, openMemory } from "./memory.ts";
import { pidNamespace } from "./named-files.ts";

const FOLDER = "/dev/shm";
const NOBODY = 65_534;
const skip =
  process.platform !== "linux"
    ? "there is no /dev/shm"
    : process.geteuid?.() !== 0 && "only root can make files of another user";

/**
 * A name for memory, and files whose names begin as those of its file do and come before it in
 * every order.
 */
function foreign(context: TestContext, kind: string, make: (file: string) => void) {
  const name = `neighbour-${kind}-${process.pid}`;
  const file = path.join(FOLDER, `lockstep-${name}.${pidNamespace()}.1`);
  make(file);
  context.after(() => fs.rmSync(file, { force: true }));
  return { name, file };
}

function makeOfNobody(file: string): void {
  fs.writeFileSync(file, Buffer.alloc(4096, 7), { mode: 0o666 });
  fs.chownSync(file, NOBODY, NOBODY);
}

test("a file of another user is neither opened nor in the way", { skip }, (context) => {
  const { name, file } = foreign(context, "file", makeOfNobody);
  assert.throws(() => openMemory(name), { code: "MEMORY_NAME" });
  const made = allocateMemory(4096, { shareAs: name });
  made.bytes.fill(3);
  const opened = openMemory(name);
  assert.equal(opened.bytes[0], 3);
  opened.bytes.fill(5);
  assert.equal(made.bytes[4095], 5);
  assert.ok(fs.readFileSync(file).every((byte) => byte === 7));
  opened.close();
  made.close();
});

test("a link is not followed, and a pipe does not block", { skip }, (context) => {
  const secret = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "lockstep-test-")), "secret");
  context.after(() => fs.rmSync(path.dirname(secret), { recursive: true }));
  fs.writeFileSync(secret, Buffer.alloc(4096, 9), { mode: 0o600 });
  const link = foreign(context, "link", (file) => fs.symlinkSync(secret, file));
  const pipe = foreign(context, "pipe", (file) => execFileSync("mkfifo", [file]));
  for (const { name } of [link, pipe]) {
    assert.throws(() => openMemory(name), { code: "MEMORY_NAME" });
    const made = allocateMemory(4096, { shareAs: name });
    openMemory(name).bytes.fill(1);
    made.close();
  }
  assert.ok(fs.readFileSync(secret).every((byte) => byte === 9));
});

test("a file that others may open is refused, and a file of another user is not removed", {
  skip,
}, (context) => {
  const open = foreign(context, "open", (file) => {
    fs.writeFileSync(file, Buffer.alloc(64));
    fs.chmodSync(file, 0o666);
  });
  assert.throws(() => openMemory(open.name), { code: "MEMORY_NAME" });
  const ended = spawnSync("true").pid;
  const left = path.join(FOLDER, `lockstep-left-${process.pid}.${pidNamespace()}.${ended}`);
  makeOfNobody(left);
  context.after(() => fs.rmSync(left, { force: true }));
  allocateMemory(64, { shareAs: `neighbour-sweep-${process.pid}` }).close();
  assert.ok(fs.existsSync(left));
});
