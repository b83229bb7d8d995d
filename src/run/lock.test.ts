import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { openRunFolder } from "./folder.ts";
import { lockFolder } from "./lock.ts";

const module = new URL("lock.js", import.meta.url).href;

/** Starts another process that takes the folder and keeps it until it is killed. */
function owner(path: string): Promise<ChildProcess> {
  const code = `
    const { lockFolder } = await import(${JSON.stringify(module)});
    const path = ${JSON.stringify(path)};
    await lockFolder({ path, file: (name) => path + "/" + name });
    console.log("locked");
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code]);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", () => reject(new Error("ended")));
    child.stdout.once("data", () => resolve(child));
  });
}

test("a second owner is refused and told who the first is, and may take over at once from a killed one", () =>
  withFolder({}, async (base) => {
    const path = join(base, "run");
    const folder = await openRunFolder(path);
    const child = await owner(path);
    await assert.rejects(lockFolder(folder), {
      code: "RUN_LOCKED",
      message: new RegExp(`process ${child.pid} on ".+", since \\d{4}-`),
    });
    const gone = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGKILL");
    await gone;
    const lock = await lockFolder(folder);
    await assert.rejects(lockFolder(folder), { code: "RUN_LOCKED" }, "within a process too");
    lock.release();
    lock.release();
    (await lockFolder(folder)).release();
    assert.ok(existsSync(path), "it was there before: its first owner made it");
  }));

test("a folder that was created for a run that wrote nothing is removed with it", () =>
  withFolder({}, async (base) => {
    const path = join(base, "run");
    (await lockFolder(await openRunFolder(path))).release();
    assert.ok(!existsSync(path));
    const lock = await lockFolder(await openRunFolder(path));
    writeFileSync(join(path, "model.onnx"), "");
    lock.release();
    assert.ok(existsSync(path));
  }));

const elsewhere = { host: "elsewhere", pid: 7, since: "2026-01-01T00:00:00Z", boot: "another" };

test("an owner on another machine is gone if its number stays the same", () =>
  withFolder({ "run.lock": JSON.stringify({ ...elsewhere, beat: "1" }) }, async (path) => {
    const told: string[] = [];
    const onWatch = (text: string) => told.push(text);
    const lock = await lockFolder(await openRunFolder(path), { watchMs: 20, onWatch });
    assert.match(told.join(), /has the lock of process 7 on "elsewhere", since 2026.* for 0\.02 s/);
    assert.match(readFileSync(join(path, "run.lock"), "utf8"), new RegExp(`"pid":${process.pid}`));
    lock.release();
  }));

test("an owner on another machine is alive if its number changes", () =>
  withFolder({ "run.lock": JSON.stringify({ ...elsewhere, beat: "1" }) }, async (path) => {
    let beat = 1;
    const timer = setInterval(() => {
      beat += 1;
      const text = JSON.stringify({ ...elsewhere, beat: String(beat) });
      writeFileSync(join(path, "run.lock"), text);
    }, 1);
    try {
      await assert.rejects(lockFolder(await openRunFolder(path), { watchMs: 10_000 }), {
        code: "RUN_LOCKED",
        message: /process 7 on "elsewhere"/,
      });
    } finally {
      clearInterval(timer);
    }
  }));

test("an unreadable lock file counts as none, and a link or folder in its place is refused", () =>
  withFolder({ "run.lock": "{", "other/x": "", target: "mine" }, async (path) => {
    (await lockFolder(await openRunFolder(path))).release();
    writeFileSync(join(path, "run.lock"), '{ "boot": "of another machine" }');
    (await lockFolder(await openRunFolder(path), { watchMs: 1e6 })).release();
    symlinkSync(join(path, "target"), join(path, "run.lock"));
    await assert.rejects(lockFolder(await openRunFolder(path)), { code: "IO_FAILED" });
    assert.equal(readFileSync(join(path, "target"), "utf8"), "mine");
  }));
