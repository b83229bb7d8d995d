// Checks everything that must be clean before a commit: format, types, lint, unit tests. Stops at
// the first failure.
import { spawnSync } from "node:child_process";

const STEPS = [
  ["format", "npx", ["biome", "check", "."]],
  ["types", "npx", ["tsc", "-p", "tsconfig.json"]],
  ["bundle", process.execPath, ["scripts/bundle.mjs"]],
  ["lint", "npx", ["oxlint"]],
  ["unit tests", process.execPath, ["scripts/test.mjs", "unit"]],
];
for (const [name, command, args] of STEPS) {
  const start = performance.now();
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  console.log(
    `${status === 0 ? "ok" : "FAILED"}  ${name}  ${((performance.now() - start) / 1000).toFixed(1)} s`,
  );
  if (status !== 0) process.exit(1);
}
