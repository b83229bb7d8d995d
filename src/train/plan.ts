/** What a rank of a run would do in a step, as text: made of plans alone, without an engine or another process. */
import { LockstepError } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import {
  applyStrategies,
  bucketBytes,
  createMesh,
  dataParallel,
  formatMesh,
} from "../parallel/index.ts";
import {
  evenRanges,
  flopsOf,
  partitionGraph,
  planMemory,
  planTimeline,
  planTraining,
  receivedBytes,
  type Speeds,
  type Stage,
  type Timeline,
  type TrainingPlan,
} from "../program/index.ts";
import { byteLength, elementCount } from "../tensor/index.ts";
import type { Run } from "./run.ts";

export interface PlanOptions {
  readonly workers: number;
  readonly rank: number;
  /** Peers' memory can be read in place: workers of one machine. */
  readonly inPlace: boolean;
  readonly speeds: Speeds;
  /** Of the cut program; chosen from the speeds unless told. */
  readonly bucketBytes?: number | undefined;
}

/** Throws INVALID_OPTION where the run cannot be shared so. */
export function describePlan(run: Run, options: PlanOptions): string {
  const { workers, rank, inPlace } = options;
  if (workers > run.microBatches || rank >= workers) {
    throw new LockstepError(
      "INVALID_OPTION",
      `There is no rank ${rank} of ${workers} workers for ${run.microBatches} micro-batches.`,
      { hint: "Every worker needs a micro-batch: set microBatches in the run." },
    );
  }
  const size = run.batch / run.microBatches;
  const model = run.model.build({ batch: size, mode: "train" });
  const ranges = evenRanges(run.microBatches, workers);
  const plan = planTraining({
    model,
    optimizer: run.optimizer,
    microBatches: run.microBatches,
    clip: run.clipNorm,
    share: { rank, ranges, inPlace },
  });
  const parameters = model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  const { first, count } = plan.range;
  return [
    `${run.name}: ${model.name}, ${parameters.toLocaleString("en-US")} parameters`,
    `a step: ${run.batch} samples in ${run.microBatches} micro-batches of ${size}, on ${workers} workers`,
    `rank ${rank}: micro-batches ${first} to ${first + count - 1}`,
    "",
    ...memoryLines(plan),
    "",
    ...stageLines(plan, rank),
    "",
    ...(workers === 1 ? [] : cutLines(plan, model.loss, options)),
  ].join("\n");
}

function memoryLines({ program }: TrainingPlan): string[] {
  const rows = [...program.buffers].map(([name, bytes]) => [
    `  ${name}`,
    size(bytes),
    program.shared.has(name) ? "shared" : "",
  ]);
  let total = 0;
  for (const bytes of program.buffers.values()) total += bytes;
  return ["memory", ...columns([...rows, ["  in all", size(total), ""]])];
}

function stageLines(plan: TrainingPlan, rank: number): string[] {
  const { compute, commit } = plan.sides[0];
  const row = (stage: Stage): string[] => {
    if (stage.mode === "collective") return [`  ${stage.name}`, stage.call.kind, callBytes(stage)];
    const flops = stage.runs.reduce((sum, { graph }) => {
      const found = plan.program.graphs.get(graph);
      return sum + (found === undefined ? 0 : flopsOf(found.graph));
    }, 0);
    const runs = stage.runs.length === 1 ? "1 run" : `${stage.runs.length} runs`;
    return [`  ${stage.name}`, runs, operations(flops)];
  };
  return [
    "a step, stage after stage",
    ...columns([
      ...compute.map(row),
      ["  -- commit, if loss and norm are finite", "", ""],
      ...commit.map(row),
    ]),
    `traffic: this rank takes ${size(receivedBytes([...compute, ...commit], rank))} of its peers in a step`,
  ];
}

function callBytes(stage: Stage & { readonly mode: "collective" }): string {
  if (stage.call.kind === "barrier" || !("dtype" in stage.call)) return "";
  const { call } = stage;
  const width = byteLength({ dtype: call.dtype, shape: [1] });
  const elements = "count" in call ? call.count : call.receiveCounts.reduce((a, b) => a + b, 0);
  return size(elements * width);
}

/** The gradient of the last micro-batch, cut where buckets are ready: what could travel while the rest is computed. */
function cutLines(plan: TrainingPlan, loss: string, options: PlanOptions): string[] {
  const { workers, rank, speeds } = options;
  const { graph, gradients } = plan.gradient;
  const summed = [loss, ...gradients.values()];
  const total = summed.reduce((sum, name) => sum + byteLength(typeOf(graph, name)), 0);
  const bucket =
    options.bucketBytes ??
    bucketBytes({ latency: speeds.latency, bytesPerSecond: speeds.bytesPerSecond }, total);
  const mesh = createMesh({ data: workers });
  const rewritten = applyStrategies(
    [dataParallel({ summed, bucketBytes: bucket })],
    graph,
    mesh,
    rank,
  );
  const program = partitionGraph(rewritten);
  const timeline = planTimeline(program, speeds);
  const memory = planMemory(program, new Set(program.outputs));
  return [
    `the gradient cut into buckets of ${size(bucket)}, over ${formatMesh(mesh)}`,
    ...timelineLines(timeline),
    `computing ${time(timeline.computing)}, communicating ${time(timeline.communicating)}: ${percent(timeline.communicating - timeline.exposed, timeline.communicating)} of it beside computation, ${time(timeline.exposed)} exposed`,
    `between tasks: ${size(memory.private)} private and ${size(memory.shared)} shared (${size(memory.withoutReuse)} without reuse)`,
    `at ${operations(speeds.flopsPerSecond)}/s, ${size(speeds.bytesPerSecond)}/s and ${time(speeds.latency)} of latency`,
    "",
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
