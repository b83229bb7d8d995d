import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { allocateMemory, mapFile, openMemory } from "./memory.ts";
import { pidNamespace } from "./named-files.ts";

const hasCode = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

test("memory is zeroed, aligned and writable to its last byte", () => {
  for (const byteLength of [0, 1, 64, 4097, 2 ** 20]) {
    const memory = allocateMemory(byteLength);
    assert.equal(memory.byteLength, byteLength);
    assert.equal(memory.bytes.byteLength, byteLength);
    assert.equal(memory.address % 64n, 0n);
    assert.ok(memory.bytes.every((byte) => byte === 0));
    memory.bytes.fill(7);
    assert.equal(memory.bytes.at(-1), byteLength === 0 ? undefined : 7);
    memory.close();
  }
});

test("views show the same bytes", () => {
  const memory = allocateMemory(1024);
  const part = memory.view(100, 50);
  memory.bytes[120] = 9;
  assert.equal(part[20], 9);
  assert.throws(() => memory.view(1000, 25), /1024/);
  memory.close();
});

test("after close, use is an error and old views are harmless", () => {
  for (const shareAs of [undefined, `unit-${process.pid}-a`]) {
    const memory = allocateMemory(1 << 16, shareAs === undefined ? {} : { shareAs });
    const view = memory.bytes;
    view.fill(1);
    memory.close();
    memory.close();
    assert.throws(() => memory.bytes, hasCode("ENGINE_CLOSED"));
    assert.throws(() => memory.address, hasCode("ENGINE_CLOSED"));
    view[5] = 3; // the write has no effect
    assert.equal(typeof view[5], "number");
  }
});

test("closing returns the pages while views of them live", { skip: !hasSmaps() }, () => {
  const bytes = 64 * 2 ** 20;
  const before = residentBytes();
  const kept: Uint8Array[] = [];
  for (let i = 0; i < 10; i++) {
    const memory = allocateMemory(bytes);
    memory.bytes.fill(1);
    kept.push(memory.bytes);
    memory.close();
  }
  assert.ok(residentBytes() - before < bytes, "ten closed buffers hold less than one");
  assert.equal(kept.length, 10);
});

test("memory beyond 4 GiB has views of its parts", () => {
  const memory = allocateMemory(6 * 2 ** 30); // untouched pages cost nothing
  const late = memory.view(5 * 2 ** 30, 16);
  late[0] = 42;
  assert.equal(memory.view(5 * 2 ** 30, 1)[0], 42);
  memory.close();
});

test("an allocation larger than any memory is an error", () => {
  assert.throws(() => allocateMemory(2 ** 50), hasCode("OUT_OF_MEMORY"));
});

test("shared memory has one owner, and openers see its bytes", () => {
  const name = `unit-${process.pid}-b`;
  const memory = allocateMemory(5000, { shareAs: name });
  memory.bytes[4999] = 77;
  assert.throws(() => allocateMemory(1, { shareAs: name }), hasCode("MEMORY_NAME"));
  const other = openMemory(name);
  assert.ok(other.byteLength >= 5000);
  assert.equal(other.view(4999, 1)[0], 77);
  memory.close();
  assert.throws(() => openMemory(name), hasCode("MEMORY_NAME"));
  other.bytes[0] = 1; // its memory lives on
  other.close();
  assert.throws(() => allocateMemory(1, { shareAs: "../evil" }), hasCode("MEMORY_NAME"));
});

test("memory that is opened again is not mapped again, and lives as long as one of both", {
  skip: process.platform !== "linux",
}, () => {
  const own = allocateMemory(5000, { shareAs: `unit-${process.pid}-again` });
  own.bytes[4999] = 79;
  const byName = openMemory(own.name as string);
  own.unlink();
  const byHandle = openMemory(own.reachedAs as string);
  assert.equal(byHandle.address, byName.address);
  byName.close();
  assert.equal(byHandle.view(4999, 1)[0], 79);
  byHandle.close();
  const anew = openMemory(own.reachedAs as string);
  assert.equal(anew.view(4999, 1)[0], 79);
  anew.close();
  own.close();
});

test("what is discarded is empty for all processes, and the rest stays", {
  skip: process.platform !== "linux",
}, () => {
  const page = 4096;
  const name = `unit-${process.pid}-discard`;
  for (const own of [allocateMemory(4 * page), allocateMemory(4 * page, { shareAs: name })]) {
    own.bytes.fill(7);
    own.discard(page - 1, 2 * page + 1);
    const other = own.name === undefined ? own : openMemory(own.name);
    const found = Array.from({ length: 4 }, (_, index) => other.bytes[index * page]);
    assert.deepEqual(found, [7, 0, 0, 7]);
    other.close();
    own.close();
  }
});

test("memory without a name is opened by its handle while its owner lives", {
  skip: process.platform !== "linux",
}, () => {
  const own = allocateMemory(5000, { shareAs: `unit-${process.pid}-handle` });
  own.unlink();
  assert.equal(own.name, undefined);
  const handle = own.reachedAs as string;
  const other = openMemory(handle);
  own.bytes[4999] = 78;
  assert.equal(other.view(4999, 1)[0], 78);
  other.close();
  assert.throws(() => openMemory(handle.replace(/\d+$/, "1")), hasCode("MEMORY_NAME"));
  own.close();
  assert.equal(own.reachedAs, undefined);
  assert.throws(() => openMemory(handle), hasCode("MEMORY_NAME"));
});

test("the file of a dead process is removed", { skip: process.platform !== "linux" }, () => {
  const name = `unit-${process.pid}-c`;
  const script = `
    import { allocateMemory } from ${JSON.stringify(new URL("./memory.js", import.meta.url).href)};
    allocateMemory(100, { shareAs: ${JSON.stringify(name)} });
    if (process.argv[1] === "die") process.kill(process.pid, "SIGKILL");`;
  const run = (how: string) =>
    spawnSync(process.execPath, ["--input-type=module", "-e", script, how], { encoding: "utf8" });
  const left = () => fs.readdirSync("/dev/shm").filter((file) => file.includes(name));
  const ended = run("end");
  assert.equal(ended.status, 0, ended.stderr);
  assert.equal(left().length, 0, "a process that ends cleans up after itself");
  const killed = run("die");
  assert.equal(killed.signal, "SIGKILL", killed.stderr);
  // The file stays until the next process allocates named memory: this one, unless another test is
  // faster.
  allocateMemory(100, { shareAs: name }).close();
  assert.equal(left().length, 0);
});

const onPosix = { skip: process.platform === "win32" };

function inFolder(body: (folder: string) => void): void {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "lockstep-"));
  try {
    body(folder);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

test("memory in a file of a disk is zeroed, takes its space and has no name", onPosix, () =>
  inFolder((folder) => {
    const memory = allocateMemory(3 * 2 ** 20, { folder });
    assert.deepEqual(fs.readdirSync(folder), []);
    assert.equal(memory.folder, folder);
    assert.ok(memory.bytes.every((byte) => byte === 0));
    memory.bytes.fill(7);
    assert.equal(memory.bytes.at(-1), 7);
    memory.close();
    assert.throws(() => memory.bytes, hasCode("ENGINE_CLOSED"));
  }),
);

test("a file that processes share is for its user alone, and loses its name", onPosix, () =>
  inFolder((folder) => {
    const parts = [{ byteOffset: 2 ** 20, byteLength: 2 ** 20 }];
    const memory = allocateMemory(2 ** 30, { folder, shareAs: "slots", parts });
    const [file = ""] = fs.readdirSync(folder);
    const { mode, blocks, size } = fs.statSync(path.join(folder, file));
    assert.equal(mode & 0o777, 0o600);
    assert.equal(size, 2 ** 30);
    assert.ok(blocks * 512 >= 2 ** 20 && blocks * 512 < 2 ** 22, "only its parts take space");
    const other = openMemory("slots", folder);
    other.view(2 ** 20, 1)[0] = 5;
    assert.equal(memory.view(2 ** 20, 1)[0], 5);
    assert.throws(() => openMemory("slots"), hasCode("MEMORY_NAME"), "it is no shared memory");
    memory.unlink();
    assert.deepEqual(fs.readdirSync(folder), []);
    memory.close();
    assert.equal(other.view(2 ** 20, 1)[0], 5);
    other.close();
  }),
);

test("a link or a file in the place of a file on disk is not opened", onPosix, () =>
  inFolder((folder) => {
    const place = path.join(folder, `lockstep-slots.${pidNamespace()}.${process.pid}`);
    const victim = path.join(folder, "victim");
    fs.writeFileSync(victim, "mine");
    fs.symlinkSync(victim, place);
    assert.throws(() => allocateMemory(64, { folder, shareAs: "slots" }), hasCode("IO_FAILED"));
    assert.throws(() => openMemory("slots", folder), hasCode("MEMORY_NAME"));
    assert.equal(fs.readFileSync(victim, "utf8"), "mine");
  }),
);

test("what a dead process left on disk is swept", { skip: process.platform !== "linux" }, () =>
  inFolder((folder) => {
    const script = `
    import { allocateMemory } from ${JSON.stringify(new URL("./memory.js", import.meta.url).href)};
    const [folder] = process.argv.slice(1);
    allocateMemory(100, { folder });
    allocateMemory(100, { folder, shareAs: "left" });
    process.kill(process.pid, "SIGKILL");`;
    const words = ["--input-type=module", "-e", script, folder];
    const killed = spawnSync(process.execPath, words, { encoding: "utf8" });
    assert.equal(killed.signal, "SIGKILL", killed.stderr);
    assert.equal(fs.readdirSync(folder).length, 1, "the one that was to be shared");
    allocateMemory(64, { folder }).close();
    assert.deepEqual(fs.readdirSync(folder), []);
  }),
);

const canMount =
  process.platform === "linux" && spawnSync("unshare", ["-rm", "true"]).status === 0
    ? {}
    : { skip: "needs a mount namespace of its own" };

test("a disk that is full is an error before anything is written there", canMount, () =>
  inFolder((folder) => {
    const script = `
    import { allocateMemory } from ${JSON.stringify(new URL("./memory.js", import.meta.url).href)};
    const [folder] = process.argv.slice(1);
    const attempt = (what) => {
      try { what(); console.log("had"); } catch (error) { console.log(error.code); }
    };
    attempt(() => allocateMemory(2 ** 19, { folder }).close());
    attempt(() => allocateMemory(2 ** 23, { folder }));
    // Beyond its parts nothing was taken, until it is asked for.
    const parts = [{ byteOffset: 0, byteLength: 4096 }];
    const memory = allocateMemory(2 ** 23, { folder, parts });
    attempt(() => memory.reserve(2 ** 16, 2 ** 16));
    attempt(() => memory.reserve(0, 2 ** 23));`;
    const shell = `mount -t tmpfs -o size=1m tmpfs ${folder} && exec "$@"`;
    const words = ["-rm", "sh", "-c", shell, "sh", process.execPath];
    const run = spawnSync("unshare", [...words, "--input-type=module", "-e", script, folder], {
      encoding: "utf8",
    });
    assert.deepEqual(
      run.stdout.split("\n"),
      ["had", "DISK_FULL", "had", "DISK_FULL", ""],
      run.stderr,
    );
  }),
);

test("pages of shared memory that a process lets go of keep what they hold", {
  skip: !hasSmaps(),
}, () => {
  const bytes = 64 * 2 ** 20;
  const own = allocateMemory(bytes, { shareAs: `unit-${process.pid}-pages` });
  own.bytes.fill(3);
  const other = openMemory(own.name as string);
  const before = residentBytes();
  const sum = () => other.bytes.reduce((all, byte, at) => all + (at % 4096 === 5 ? byte : 0), 0);
  assert.equal(sum(), 3 * (bytes / 4096));
  assert.ok(residentBytes() - before > bytes / 2, "what was read is mapped here");
  other.letGo(100, bytes - 100);
  assert.ok(residentBytes() - before < bytes / 2, "and then no longer");
  assert.equal(sum(), 3 * (bytes / 4096));
  other.close();
  own.close();
});

test("private memory is not let go of", () => {
  const memory = allocateMemory(1 << 16);
  memory.bytes.fill(4);
  memory.letGo(0, 1 << 16);
  assert.ok(memory.bytes.every((byte) => byte === 4));
  memory.close();
});

test("a file is mapped unchanged", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "lockstep-"));
  const file = path.join(folder, "weights");
  fs.writeFileSync(file, "weights of a model");
  const memory = mapFile(file);
  assert.equal(Buffer.from(memory.bytes).toString(), "weights of a model");
  memory.close();
  fs.writeFileSync(file, "");
  assert.equal(mapFile(file).byteLength, 0);
  fs.rmSync(folder, { recursive: true });
  assert.throws(() => mapFile(file), hasCode("FILE_NOT_FOUND"));
});

function hasSmaps(): boolean {
  return process.platform === "linux";
}

function residentBytes(): number {
  return Number(fs.readFileSync("/proc/self/statm", "utf8").split(" ")[1]) * 4096;
}
