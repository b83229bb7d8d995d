/** What a rank of a run would do in a step, as text: made of plans alone, without an engine or another process. */
import { LockstepError } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import { bucketBytes } from "../parallel/index.ts";
import {
  type Axis,
  evenRanges,
  flopsOf,
  planTimeline,
  planTraining,
  type RunStage,
  receivedBytes,
  type Speeds,
  type Stage,
  type TaskStage,
  type Timeline,
  type TrainingPlan,
} from "../program/index.ts";
import { byteLength, elementCount } from "../tensor/index.ts";
import type { Run } from "./run.ts";

export interface PlanOptions {
  /** Of all machines together. */
  readonly workers: number;
  /** On each of them equally many workers, which read each other's memory in place. Default: 1. */
  readonly machines?: number;
  readonly rank: number;
  readonly speeds: Speeds;
  /** Of gradients that travel together between machines; chosen from the speeds unless told. */
  readonly bucketBytes?: number | undefined;
}

/** Throws INVALID_OPTION where the run cannot be shared so. */
export function describePlan(run: Run, options: PlanOptions): string {
  const { workers, rank, machines: count = 1, speeds } = options;
  check(run, workers, rank, count);
  const size = run.batch / run.microBatches;
  const model = run.model.build({ batch: size, mode: "train" });
  const each = workers / count;
  const machines = Array.from({ length: count }, (_, machine) =>
    Array.from({ length: each }, (_, place) => machine * each + place),
  );
  const total = model.parameters.reduce(
    (sum, { name }) => sum + byteLength(typeOf(model.graph, name)),
    0,
  );
  const bucket = options.bucketBytes ?? run.bucketBytes ?? bucketBytes(speeds, total);
  const between = count > 1 ? { bucketBytes: bucket, overlap: true } : {};
  const { reproducible } = run;
  const plan = planTraining({
    model,
    optimizer: run.optimizer,
    microBatches: run.microBatches,
    clip: run.clipNorm,
    share: {
      rank,
      ranges: evenRanges(run.microBatches, workers),
      machines,
      reproducible,
      ...between,
    },
  });
  const placeOf = (axis: Axis) =>
    ({ all: rank, machine: rank % each, across: Math.floor(rank / each) })[axis];
  const parameters = model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  const { first, count: own } = plan.range;
  const on = count === 1 ? "" : ` on ${count} machines`;
  return [
    `${run.name}: ${model.name}, ${parameters.toLocaleString("en-US")} parameters`,
    `a step: ${run.batch} samples in ${run.microBatches} micro-batches of ${size}, for ${workers} worker${workers === 1 ? "" : "s"}${on}`,
    `rank ${rank}: micro-batches ${first} to ${first + own - 1}`,
    "",
    ...memoryLines(plan),
    "",
    ...stageLines(plan, placeOf),
    ...overlapLines(plan, speeds),
    "",
  ].join("\n");
}

function check({ microBatches }: Run, workers: number, rank: number, machines: number): void {
  if (workers > microBatches || rank >= workers) {
    throw new LockstepError(
      "INVALID_OPTION",
      `There is no rank ${rank} of ${workers} workers for ${microBatches} micro-batches.`,
      { hint: "Every worker needs a micro-batch: set microBatches in the run." },
    );
  }
  if (workers % machines === 0) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `${workers} workers cannot be shared out evenly to ${machines} machines.`,
  );
}

function memoryLines({ program }: TrainingPlan): string[] {
  const rows = [...program.buffers].map(([name, { byteLength: bytes }]) => [
    `  ${name}`,
    size(bytes),
    program.shared.has(name) ? "shared" : "",
  ]);
  let total = 0;
  for (const { byteLength: bytes } of program.buffers.values()) total += bytes;
  return ["memory", ...columns([...rows, ["  in all", size(total), ""]])];
}

function stageLines(plan: TrainingPlan, placeOf: (axis: Axis) => number): string[] {
  const { totals, compute: computed, commit } = plan.sides[0];
  const compute = [...totals, ...computed];
  const row = (stage: Stage): string[][] => {
    if (stage.mode === "tasks") return taskRows(stage);
    if (stage.mode === "collective") {
      return [[`  ${stage.name}`, stage.call.kind, `${callBytes(stage)} ${axisName(stage.axis)}`]];
    }
    const runs = stage.runs.length === 1 ? "1 run" : `${stage.runs.length} runs`;
    return [[`  ${stage.name}`, runs, operations(flopsOfRuns(plan, stage))]];
  };
  const taskRows = ({ name, tasks, work }: TaskStage) => [
    [`  ${name}, by readiness`, `${tasks.length} tasks`, ""],
    ...tasks.flatMap((task) =>
      (work.get(task) ?? []).flatMap(row).map(([what = "", ...rest]) => [`  ${what}`, ...rest]),
    ),
  ];
  const received = size(receivedBytes([...compute, ...commit], placeOf));
  return [
    "a step, stage after stage",
    ...columns([
      ...compute.flatMap(row),
      ["  -- commit, if loss and norm are finite", "", ""],
      ...commit.flatMap(row),
    ]),
    `traffic: this rank takes ${received} of its peers in a step`,
  ];
}

function axisName(axis: Axis): string {
  if (axis === "all") return "";
  return axis === "machine" ? "in the machine" : "between machines";
}

function flopsOfRuns({ program }: TrainingPlan, { runs }: RunStage): number {
  return runs.reduce((sum, { graph }) => {
    const found = program.graphs.get(graph);
    return sum + (found === undefined ? 0 : flopsOf(found.graph));
  }, 0);
}

function callBytes({ call }: Extract<Stage, { readonly mode: "collective" }>): string {
  if (call.kind === "barrier" || !("dtype" in call)) return "";
  const width = byteLength({ dtype: call.dtype, shape: [1] });
  const elements = "count" in call ? call.count : call.receiveCounts.reduce((a, b) => a + b, 0);
  return size(elements * width);
}

/** When the tasks of the last micro-batch would run, and how much of the communication is beside computation. */
function overlapLines({ cut }: TrainingPlan, speeds: Speeds): string[] {
  if (cut === undefined) return [];
  const timeline = planTimeline(cut.program, speeds);
  const { communicating, computing, exposed } = timeline;
  const beside = percent(communicating - exposed, communicating);
  return [
    "",
    "the last micro-batch, when what is ready",
    ...timelineLines(timeline),
    `computing ${time(computing)}, communicating ${time(communicating)}: ${beside} of it beside computation, ${time(exposed)} exposed`,
    `between segments: ${size(cut.memory.private)} (${size(cut.memory.withoutReuse)} without reuse)`,
    `at ${operations(speeds.flopsPerSecond)}/s, ${size(speeds.bytesPerSecond)}/s and ${time(speeds.latency)} of latency`,
  ];
}

function timelineLines({ tasks }: Timeline): string[] {
  return columns(
    tasks.map(({ task, flops, start, end }) => [
      `  ${task.kind === "segment" ? task.name : `  ${task.node.op.replace("lockstep::", "")} of ${task.inputs.length}`}`,
      task.kind === "segment" ? operations(flops) : size(task.bytes),
      `${time(start)} to ${time(end)}`,
    ]),
  );
}

function percent(part: number, whole: number): string {
  return whole === 0 ? "none" : `${Math.round((100 * part) / whole)}%`;
}

function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = [0, 1].map((at) => Math.max(...rows.map((row) => (row[at] ?? "").length)));
  return rows.map(([a = "", b = "", c = ""]) =>
    `${a.padEnd(widths[0] ?? 0)}  ${b.padStart(widths[1] ?? 0)}  ${c}`.trimEnd(),
  );
}

function size(bytes: number): string {
  return scaled(bytes, 1000, ["B", "kB", "MB", "GB", "TB"]);
}

function operations(flops: number): string {
  return scaled(flops, 1000, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"]);
}

function time(seconds: number): string {
  if (seconds === 0) return "0 ms";
  return seconds < 1e-3 ? `${(seconds * 1e6).toFixed(0)} µs` : `${(seconds * 1e3).toFixed(1)} ms`;
}

function scaled(value: number, step: number, units: readonly string[]): string {
  let at = 0;
  let rest = value;
  while (rest >= step && at < units.length - 1) {
    rest /= step;
    at += 1;
  }
  return `${rest >= 100 || Number.isInteger(rest) ? Math.round(rest) : rest.toFixed(1)} ${units[at]}`;
}
