import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { randomSource } from "../../test/support/random.ts";
import { openFolderStore } from "./folder-store.ts";

const module = new URL("folder-store.js", import.meta.url).href;

interface Counted {
  readonly count: number;
  readonly filler: string;
}

/** Starts a process that writes states without end, and says when each is durable. */
function startWriter(path: string): ChildProcess {
  const code = `
    const { openFolderStore } = await import(${JSON.stringify(module)});
    const store = await openFolderStore(${JSON.stringify(path)});
    console.log("term " + store.term);
    for (let count = (store.last?.count ?? 0) + 1; ; count++) {
      await store.write({ count, filler: "x".repeat((count * 7919) % 60_000) });
      console.log("count " + count);
    }`;
  const words = ["--input-type=module", "-e", code];
  return spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
}

test("a process that is killed while it writes loses no state that was durable", () =>
  withFolder({}, async (base) => {
    const path = join(base, "state");
    const random = randomSource(3);
    let [last, term] = [0, 0];
    for (let round = 0; round < 12; round++) {
      const child = startWriter(path);
      const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
      const enough = last + 1 + Math.floor(random() * 60);
      const closed = once(child, "close");
      for await (const line of lines) {
        const [what, number] = line.split(" ");
        if (what === "term") {
          assert.ok(Number(number) > term, "each owner has a higher term");
          term = Number(number);
        } else last = Number(number);
        if (last >= enough) setTimeout(() => child.kill("SIGKILL"), random() * 3);
      }
      await closed;
      const store = await openFolderStore(path);
      const { count, filler } = store.last as Counted;
      assert.ok(count === last || count === last + 1, `${count} after ${last}`);
      assert.equal(filler.length, (count * 7919) % 60_000);
      await store.close();
      assert.deepEqual((await readdir(path)).length, 1, "older files are removed");
      last = count;
    }
  }));

test("of a file that ends at any byte, the last whole state is read", () =>
  withFolder({}, async (base) => {
    const path = join(base, "state");
    const store = await openFolderStore(path);
    const states = [{ a: 1 }, { b: "zwei\n2" }, { c: [3, null] }, { d: { e: "vier" } }];
    const ends: number[] = [];
    const file = join(path, "state-1.log");
    for (const state of states) {
      await store.write(state);
      ends.push((await readFile(file)).byteLength);
    }
    await store.close();
    const whole = await readFile(file);
    for (let length = 0; length <= whole.byteLength; length++) {
      const copy = join(base, "copy");
      await mkdir(copy);
      await copyFile(file, join(copy, "state-1.log"));
      await truncate(join(copy, "state-1.log"), length);
      const found = await openFolderStore(copy);
      const expected = states[ends.filter((end) => end <= length).length - 1];
      assert.deepEqual(found.last, expected, `${length} bytes`);
      assert.equal(found.term, 2);
      await found.close();
      await rm(copy, { recursive: true });
    }
  }));

test("a byte that changed in the last state costs that state only", () =>
  withFolder({}, async (base) => {
    const path = join(base, "state");
    const store = await openFolderStore(path);
    await store.write({ good: 1 });
    await store.write({ bad: 2 });
    await store.close();
    const file = join(path, "state-1.log");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replace('"bad":2', '"bad":3'));
    const found = await openFolderStore(path);
    assert.deepEqual(found.last, { good: 1 });
    await found.close();
  }));

test("a second coordinator is refused while the first lives, and takes over when it is dead", () =>
  withFolder({}, async (base) => {
    const path = join(base, "state");
    const child = startWriter(path);
    await once(child.stdout as NodeJS.ReadableStream, "data");
    await assert.rejects(openFolderStore(path), {
      code: "RUN_LOCKED",
      message: new RegExp(`^A run is being led from ".+" by process ${child.pid} on`),
    });
    const closed = once(child, "close");
    child.kill("SIGKILL");
    await closed;
    const store = await openFolderStore(path);
    assert.equal(store.term, 2);
    await store.close();
  }));

test("an owner whose store was taken over is refused, whatever it thought of its lock", () =>
  withFolder({}, async (base) => {
    const path = join(base, "state");
    const first = await openFolderStore(path);
    await first.write({ by: "first" });
    // As on storage that shares files between machines, but not their locks.
    await rm(join(path, "run.lock"));
    const second = await openFolderStore(path);
    assert.deepEqual([second.term, second.last], [2, { by: "first" }]);
    await assert.rejects(first.write({ by: "first, too late" }), {
      code: "FENCED",
      message: /^This coordinator \(term 1\) no longer leads the run .* of term 2, has taken over/,
    });
    await second.write({ by: "second" });
    await assert.rejects(first.write({ by: "first" }), { code: "FENCED" });
    await first.close();
    await second.close();
    const third = await openFolderStore(path);
    assert.deepEqual([third.term, third.last], [3, { by: "second" }]);
    await third.close();
  }));

test("states that come faster than they are written are written together, the last of them", () =>
  withFolder({}, async (base) => {
    const path = join(base, "state");
    const store = await openFolderStore(path);
    const writes = Array.from({ length: 1000 }, (_, count) => store.write({ count }));
    await Promise.all(writes);
    const lines = (await readFile(join(path, "state-1.log"), "utf8")).trimEnd().split("\n");
    assert.ok(lines.length <= 3, `${lines.length} lines`);
    await store.close();
    const again = await openFolderStore(path);
    assert.deepEqual(again.last, { count: 999 });
    await again.close();
  }));

test("a store stays small, however long it is written to", () =>
  withFolder({}, async (base) => {
    const path = join(base, "state");
    const store = await openFolderStore(path);
    const filler = "y".repeat(100_000);
    for (let count = 0; count < 40; count++) await store.write({ count, filler });
    const { byteLength } = await readFile(join(path, "state-1.log"));
    assert.ok(byteLength < 1.3e6, `${byteLength} bytes`);
    await store.close();
    const again = await openFolderStore(path);
    assert.deepEqual(again.last, { count: 39, filler });
    await again.close();
  }));
