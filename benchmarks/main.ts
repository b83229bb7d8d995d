/** `npm run bench -- NAME [--json] [--save] [--note=TEXT]`: one benchmark, one question, one dated result. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { allreduce } from "./allreduce.ts";
import { memory } from "./memory.ts";
import { network } from "./network.ts";
import { optimizer } from "./optimizer.ts";
import { recurrent } from "./recurrent.ts";
import {
  type Benchmark,
  currentCommit,
  formatTable,
  machineName,
  type Result,
  saveResult,
} from "./report.ts";
import { scaling } from "./scaling.ts";
import { step } from "./step.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const benchmarks: readonly Benchmark[] = [
  step,
  optimizer,
  allreduce,
  scaling,
  network,
  recurrent,
  memory,
];

async function main(words: readonly string[]): Promise<number> {
  const name = words.find((word) => !word.startsWith("--"));
  const benchmark = benchmarks.find((candidate) => candidate.name === name);
  if (benchmark === undefined) {
    console.error(`Which benchmark? npm run bench -- NAME [--json] [--save] [--note=TEXT]`);
    for (const { name: known, question } of benchmarks) console.error(`  ${known}: ${question}`);
    return 1;
  }
  console.error(`${benchmark.name}: ${benchmark.question}`);
  const { rows, missing } = await benchmark.run();
  const note = words.find((word) => word.startsWith("--note="))?.slice("--note=".length);
  const result: Result = {
    name: benchmark.name,
    date: new Date().toISOString(),
    commit: currentCommit(root),
    machine: machineName(),
    rows,
    missing,
    ...(note === undefined ? {} : { note }),
  };
  console.log(formatTable(result));
  if (words.includes("--save")) console.log(`kept in ${saveResult(root, result)}`);
  if (words.includes("--json")) console.log(JSON.stringify(result));
  return 0;
}

process.exitCode = await main(process.argv.slice(2));
