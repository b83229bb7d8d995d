/** `lockstep checkpoints DIR`: lists the checkpoints of a run, checks them, or compares two. */
import { type CheckpointStore, describeFault, differences } from "../checkpoint/index.ts";
import { LockstepError } from "../errors.ts";
import {
  type CheckpointHead,
  changesBetween,
  columns,
  openStep,
  requireWhole,
  size,
} from "../run/index.ts";
import { printable } from "../telemetry/index.ts";
import { openRecorded, requireStep, stepsOf } from "./recorded.ts";

export interface CheckpointsFlags {
  readonly verify?: boolean;
  /** Two steps. */
  readonly diff?: readonly string[];
}

/** The most tensors that are named. */
const MOST_NAMED = 20;

export async function checkpointsCommand(dir: string, flags: CheckpointsFlags): Promise<void> {
  const { checkpoints } = await openRecorded(dir);
  const steps = await stepsOf(dir, checkpoints);
  const lines =
    flags.diff === undefined
      ? await listed(checkpoints, steps, flags.verify === true)
      : await compared(checkpoints, steps, flags.diff);
  console.log(printable(lines.join("\n")));
}

/** Sets the exit status to 1 when one of them is damaged. */
async function listed(
  checkpoints: CheckpointStore,
  steps: readonly number[],
  verifies: boolean,
): Promise<string[]> {
  const rows: string[][] = [];
  for (const step of steps) {
    const fault = await describe(checkpoints, step, verifies);
    if ("fault" in fault) process.exitCode = 1;
    rows.push([`step ${step}`, "fault" in fault ? "" : size(fault.bytes), fault.text]);
  }
  return columns(rows);
}

type Described =
  | { readonly bytes: number; readonly text: string }
  | { readonly fault: true; readonly text: string };

async function describe(
  checkpoints: CheckpointStore,
  step: number,
  verifies: boolean,
): Promise<Described> {
  let head: CheckpointHead;
  try {
    head = await openStep(checkpoints, step);
  } catch (error) {
    return { fault: true, text: firstLine(error) };
  }
  const { files, byteLength: bytes } = head.source;
  const faults: string[] = [];
  for (const [shard, file] of verifies ? files.entries() : []) {
    const fault = await head.source.check(shard);
    if (fault !== undefined) faults.push(describeFault(file, fault));
  }
  if (faults.length > 0) return { fault: true, text: `damaged: ${faults.join("; ")}` };
  const shards = `${files.length} ${files.length === 1 ? "shard" : "shards"}`;
  const told = verifies ? ", whole" : "";
  return {
    bytes,
    text: `${lossOf(head)}, ${head.seconds.toFixed(1)} s of training, ${shards}${told}`,
  };
}

function lossOf({ trainLoss }: CheckpointHead): string {
  return Number.isFinite(trainLoss) ? `loss ${trainLoss.toFixed(4)}` : "loss unknown";
}

function firstLine(error: unknown): string {
  const [line = ""] = (error instanceof Error ? error.message : String(error)).split("\n");
  return line;
}

async function compared(
  checkpoints: CheckpointStore,
  steps: readonly number[],
  words: readonly string[],
): Promise<string[]> {
  const [one = Number.NaN, other = Number.NaN, ...more] = words.map((word) =>
    /^\d+$/.test(word) ? Number(word) : Number.NaN,
  );
  if (Number.isNaN(one + other) || more.length > 0) {
    throw new LockstepError("INVALID_OPTION", "--diff takes two steps, as in --diff 100 200.");
  }
  for (const step of [one, other]) requireStep(steps, step);
  const [a, b] = [await openStep(checkpoints, one), await openStep(checkpoints, other)];
  for (const head of [a, b]) await requireWhole(head);
  const options = changesBetween(a.identity, b.identity).map(
    ({ name, before, now }) => `${name} is ${before} and ${now}`,
  );
  const found = await differences(a.source, b.source);
  const named = found.slice(0, MOST_NAMED).map(({ name, what }) => `${name} ${what}`);
  const rest = found.length - named.length;
  return [
    `step ${one}: ${lossOf(a)}; step ${other}: ${lossOf(b)}`,
    ...(options.length === 0 ? ["the same model, data and options"] : options),
    `${found.length} of ${a.source.tensors.size} tensors differ`,
    ...named.map((line) => `  ${line}`),
    ...(rest > 0 ? [`  and ${rest} more`] : []),
  ];
}
