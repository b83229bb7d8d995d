/**
 * `npm run bench -- NAME [--against REV] [--json] [--save] [--note TEXT]`: one benchmark, one
 * question, one dated result. With `--against`, that revision is built and measured beside this
 * one. `--models PATTERN`, `--ways PATTERN` and `--steps N` choose what `same` compares. It takes
 * hours: `--cells FILE` keeps what it has found, and the next run goes on there; `--minutes N` ends it.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildRevision } from "./against.ts";
import { allreduce } from "./allreduce.ts";
import { bubble } from "./bubble.ts";
import { checkpoint } from "./checkpoint.ts";
import { membership } from "./membership.ts";
import { memory } from "./memory.ts";
import { network } from "./network.ts";
import { optimizer } from "./optimizer.ts";
import { parallel } from "./parallel.ts";
import { predicted } from "./predicted.ts";
import { predictedHere } from "./predicted-here.ts";
import { recovery } from "./recovery.ts";
import { recurrent } from "./recurrent.ts";
import {
  type Benchmark,
  currentCommit,
  formatTable,
  machineName,
  type Result,
  saveResult,
} from "./report.ts";
import { same } from "./same.ts";
import { scaling } from "./scaling.ts";
import { step } from "./step.ts";
import { torture } from "./torture.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const benchmarks: readonly Benchmark[] = [
  step,
  optimizer,
  allreduce,
  scaling,
  network,
  recurrent,
  memory,
  parallel,
  bubble,
  predicted,
  predictedHere,
  recovery,
  checkpoint,
  torture,
  membership,
  same,
];

const OPTIONS = {
  against: { type: "string" },
  models: { type: "string" },
  ways: { type: "string" },
  steps: { type: "string" },
  cells: { type: "string" },
  minutes: { type: "string" },
  json: { type: "boolean", default: false },
  save: { type: "boolean", default: false },
  note: { type: "string" },
} as const;

/** @throws where a text is no number: nothing would be compared, and nothing said */
function numberOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (text.trim() === "" || !(number >= 0)) throw new Error(`"${text}" is no number of 0 or more.`);
  return number;
}

async function main(words: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: words,
    options: OPTIONS,
    allowPositionals: true,
  });
  const benchmark = benchmarks.find(({ name }) => name === positionals[0]);
  if (benchmark === undefined || positionals.length > 1) {
    const options = "[--against REV] [--json] [--save] [--note TEXT]";
    console.error(`Which benchmark? npm run bench -- NAME ${options}`);
    for (const { name, question } of benchmarks) console.error(`  ${name}: ${question}`);
    return 1;
  }
  const { name, question, comparesRevisions = false, takesChoice = false } = benchmark;
  if (values.against !== undefined && !comparesRevisions) {
    console.error(`${name} does not measure another revision: leave out --against.`);
    return 1;
  }
  const { models, ways, steps, cells, minutes } = values;
  if (!takesChoice && [models, ways, steps, cells, minutes].some((own) => own !== undefined)) {
    console.error(`${name} does all of its work at once: only "same" takes those options.`);
    return 1;
  }
  const against = values.against === undefined ? undefined : buildRevision(root, values.against);
  console.error(`${name}: ${question}`);
  const choice = { models, ways, steps: numberOf(steps), cells, minutes: numberOf(minutes) };
  const options = { against, ...choice };
  const { rows, missing, text } = await benchmark.run(options);
  const result: Result = {
    name,
    date: new Date().toISOString(),
    commit: currentCommit(root),
    machine: machineName(),
    rows,
    missing,
    ...(text === undefined ? {} : { text }),
    ...(values.note === undefined ? {} : { note: values.note }),
  };
  console.log(formatTable(result));
  if (values.save) console.log(`kept in ${saveResult(root, result)}`);
  if (values.json) console.log(JSON.stringify(result));
  return 0;
}

process.exitCode = await main(process.argv.slice(2));
