// Exports real models of PyTorch in many ways, trains them there and here, and compares: `node
// scripts/nightly-exports.mjs [MODEL ...]`. LOCKSTEP_PYTHON names a Python with torch, torchvision,
// timm, transformers, diffusers, onnx, onnxscript and onnxruntime. LOCKSTEP_EXPORTS names a folder
// for the exports, which are made once. It takes an hour or two on two cores. Results are in
// test/nightly/results/.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const root = path.join(import.meta.dirname, "..");
const python = process.env.LOCKSTEP_PYTHON ?? "python3";
const needed =
  "import torch, torchvision, timm, transformers, diffusers, onnx, onnxscript, onnxruntime";
if (spawnSync(python, ["-c", needed]).status !== 0) {
  console.log(
    `Skipped: ${python} does not have all of: ${needed}. Set LOCKSTEP_PYTHON to a Python that has them.`,
  );
  process.exit(0);
}
const folder =
  process.env.LOCKSTEP_EXPORTS ?? mkdtempSync(path.join(os.tmpdir(), "lockstep-exports-"));
const models = process.argv.slice(2);
const env = { ...process.env, OMP_NUM_THREADS: "1" };
const run = (script, args, stdio) =>
  spawnSync(python, [path.join(root, "test/nightly", script), folder, ...args], {
    env,
    stdio,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
run("export.py", models, ["ignore", "inherit", "ignore"]);
const pattern = models.length === 0 ? [] : [`^(${models.join("|")})/`];
const { stdout, status } = run("exports.py", pattern, ["ignore", "pipe", "inherit"]);
process.stdout.write(stdout);
if (models.length === 0) {
  const results = path.join(root, "test/nightly/results");
  mkdirSync(results, { recursive: true });
  const day = new Date().toISOString().slice(0, 10);
  writeFileSync(path.join(results, `exports-${day}.txt`), stdout);
}
process.exit(status ?? 1);
