/** The code in the README is run unchanged. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

test("the README's run trains, and the commands below it work", () => {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const code = /```ts\n(\/\/ train\.ts\n[\s\S]*?)```/.exec(readme)?.[1];
  assert.ok(code !== undefined, "the README has a run file");
  const folder = mkdtempSync(join(tmpdir(), "lockstep-readme-"));
  const lockstep = (...args: string[]) =>
    execFileSync(process.execPath, [join(root, "dist/main.js"), ...args], {
      cwd: folder,
      encoding: "utf8",
    });
  try {
    writeFileSync(join(folder, "train.ts"), code);
    cpSync(join(root, "docs"), join(folder, "corpus"), { recursive: true });
    lockstep("train", "train.ts", "--steps", "1", "--batch", "2");
    const report = JSON.parse(readFileSync(join(folder, "runs/gpt/report.json"), "utf8"));
    assert.equal(report.steps, 1);
    assert.match(lockstep("sample", "runs/gpt", "--prompt", "Once", "--tokens", "2"), /^Once/);
    assert.match(lockstep("inspect", "runs/gpt/model.onnx"), /Every operator has a gradient/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
