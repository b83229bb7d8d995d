import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { checkBeginning, namedFolder, openRunFolder, prepareFolder } from "./folder.ts";

test("naming a folder creates nothing, and fails at once if it could not be written", () =>
  withFolder({ file: "" }, async (folder) => {
    const deep = join(folder, "a/b/c");
    assert.equal((await openRunFolder(deep)).file("x"), join(deep, "x"));
    assert.ok(!existsSync(join(folder, "a")));
    for (const path of ["file", "file/under"]) {
      await assert.rejects(openRunFolder(join(folder, path)), { code: "IO_FAILED" });
    }
  }));

test("a folder that the system cannot create is an error, not a wait", {
  skip: process.platform !== "linux",
}, async () => {
  const folder = namedFolder("/proc/lockstep/run");
  await assert.rejects(prepareFolder(folder, "new"), { code: "IO_FAILED" });
});

test("a run that begins in the folder of a finished one moves its files aside, and leaves other files alone", () =>
  withFolder(
    {
      "report.json": "1",
      "model.onnx": "2",
      "notes.txt": "mine",
      ".report.json.0123456789ab.tmp": "",
    },
    async (path) => {
      const folder = await openRunFolder(path);
      await checkBeginning(folder, "new");
      await prepareFolder(folder, "new");
      assert.deepEqual(readdirSync(path).sort(), ["earlier-1", "notes.txt"]);
      assert.equal(readFileSync(join(path, "earlier-1/model.onnx"), "utf8"), "2");
      await prepareFolder(folder, "new");
      assert.deepEqual(readdirSync(path).sort(), ["earlier-1", "notes.txt"], "nothing to move");
    },
  ));

test("an unfinished run is guarded, and a resumed run is no longer finished", () =>
  withFolder({ "checkpoint.safetensors": "1" }, async (path) => {
    const folder = await openRunFolder(path);
    await assert.rejects(checkBeginning(folder, "new"), { code: "RUN_EXISTS" });
    await checkBeginning(folder, "anew");
    await checkBeginning(folder, "resume");
    await prepareFolder(folder, "resume");
    assert.deepEqual(readdirSync(path), ["checkpoint.safetensors"]);
  }));
