// Runs compiled tests with Node's own runner: `all`, `unit` (beside sources), or paths under
// build/.
import { spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { globSync } from "tinyglobby";

const SETS = {
  all: ["build/src/**/*.test.js", "build/test/**/*.test.js", "build/examples/**/*.test.js"],
  unit: ["build/src/**/*.test.js", "build/test/architecture.test.js"],
};

const words = process.argv.slice(2);
const patterns = words.flatMap((word) => SETS[word] ?? [word]);
const files = globSync(patterns).sort();
if (files.length === 0) {
  console.error(`No test file matches ${patterns.join(" ")}. Run "npm run build" first.`);
  process.exit(1);
}
const result = spawnSync(
  process.execPath,
  [
    "--enable-source-maps",
    // Test files run for seconds: V8 would compile for speed what is over then. A third less of the
    // processor's time (docs/lab.md). Node.js 22 does not know the flag.
    ...(Number.parseInt(process.versions.node) < 22 ? ["--interrupt-budget=1000000"] : []),
    "--test",
    `--test-concurrency=${availableParallelism()}`,
    "--test-timeout=300000",
    // Unlike "tap", which is the default outside a terminal, it repeats the failed tests at the end.
    "--test-reporter=spec",
    ...files,
  ],
  // Tests also load the official binding, which would record its use for upload to its maker.
  { stdio: "inherit", env: { ...process.env, ORT_DISABLE_TELEMETRY: "1" } },
);
process.exit(result.status ?? 1);
