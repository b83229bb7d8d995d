/** What a rank of a run would do in a step, as text: made of plans alone, without an engine or another process. */
import type { Graph } from "../graph/index.ts";
import { evenTopology, formatMesh } from "../mesh/index.ts";
import { checkRank } from "../net/index.ts";
import type { Model } from "../nn/index.ts";
import { flopsOf } from "../ops/index.ts";
import {
  applyStrategies,
  bucketBytes,
  checkWorkers,
  chooseParallel,
  type Parallel,
  type ParallelOptions,
} from "../parallel/index.ts";
import {
  buildStep,
  describeStep,
  isPiece,
  passMemory,
  type StepGraph,
  stepToJson,
} from "../plan/index.ts";
import {
  COMPUTE,
  collectiveBytes,
  flopsOfStages,
  lower,
  planTimeline,
  programToJson,
  receivedBytes,
  residentBytes,
  residentMemory,
  type Speeds,
  type Stage,
  type StepProgram,
  type TaskStage,
  type Timeline,
  totalOf,
} from "../program/index.ts";
import { elementCount } from "../tensor/index.ts";
import { parameterBytes } from "../train/index.ts";
import type { Run } from "./run.ts";

export interface PlanOptions extends ParallelOptions {
  /** Of all machines together. */
  readonly workers: number;
  /** On each of them equally many workers, which read each other's memory in place. Default: 1. */
  readonly machines?: number;
  readonly rank: number;
  readonly speeds: Speeds;
  /** Of gradients that travel together between machines; chosen from the speeds unless told. */
  readonly bucketBytes?: number | undefined;
}

interface RankPlan {
  readonly model: Model;
  readonly parallel: Parallel;
  /** Of one process. */
  readonly alone: StepGraph;
  /** As strategies have rewritten it. */
  readonly step: StepGraph;
  readonly program: StepProgram;
}

/** Throws INVALID_OPTION where the run cannot be shared so. */
function planRank(run: Run, options: PlanOptions): RankPlan {
  const { workers, rank, machines: count = 1, speeds } = options;
  check(run, workers, rank, count);
  const size = run.batch / run.microBatches;
  const model = run.model.build({ batch: size, mode: "train" });
  const bucket =
    options.bucketBytes ?? run.bucketBytes ?? bucketBytes(speeds, parameterBytes(model));
  const { optimizer, microBatches, clipNorm, reproducible = true } = run;
  const parallel = chooseParallel({
    topology: evenTopology(workers, count),
    parallel: options.parallel ?? run.parallel,
    zero: options.zero ?? run.zero,
    recompute: options.recompute ?? run.recompute,
    combination: reproducible ? "tree" : "any",
    buckets: { bucketBytes: bucket },
  });
  const { mesh, topology, strategies } = parallel;
  const alone = buildStep({ model, optimizer, microBatches, clip: clipNorm });
  const step = applyStrategies(strategies, alone, mesh);
  const program = lower(step, { ground: { mesh, topology }, rank, optimizer });
  return { model, parallel, alone, step, program };
}

/** The step of all ranks and the program of one, as JSON that is read back to the same bits. Throws as `describePlan` does. */
export function planAsJson(run: Run, options: PlanOptions): string {
  const { step, program } = planRank(run, options);
  return `${JSON.stringify({ step: stepToJson(step), program: programToJson(program) })}\n`;
}

/** Throws INVALID_OPTION where the run cannot be shared so. */
export function describePlan(run: Run, options: PlanOptions): string {
  const { workers, rank, machines: count = 1, speeds } = options;
  const { model, parallel, alone, step, program: plan } = planRank(run, options);
  const size = run.batch / run.microBatches;
  const placeOf = (group: string) => plan.groups.get(group)?.indexOf(rank) ?? 0;
  const parameters = model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  const own = plan.microBatches;
  const on = count === 1 ? "" : ` on ${count} machines`;
  return [
    `${run.name}: ${model.name}, ${parameters.toLocaleString("en-US")} parameters`,
    `a step: ${run.batch} samples in ${run.microBatches} micro-batches of ${size}, for ${workers} worker${workers === 1 ? "" : "s"}${on}`,
    `rank ${rank}: micro-batches ${listed(own)}`,
    "",
    ...parallelLines(parallel),
    ...describeStep(step).map((line) => `  ${line}`),
    "",
    ...memoryLines(plan),
    ...activationLines(alone, step),
    "",
    ...stageLines(plan, placeOf),
    ...overlapLines(plan, speeds),
    "",
  ].join("\n");
}

function check({ microBatches }: Run, workers: number, rank: number, machines: number): void {
  checkWorkers(workers, microBatches);
  checkRank(rank, workers);
  evenTopology(workers, machines);
}

function parallelLines({ mesh, strategies, reason }: Parallel): string[] {
  const names = strategies.map(({ name }) => name);
  if (names.length === 0) return [reason];
  const on = mesh.size === 1 ? "" : `mesh ${formatMesh(mesh)}; `;
  return [reason, `${on}strategies: ${names.join(", ")}`];
}

/** `4 to 7`, or `0, 4` where they do not follow each other. */
function listed(microBatches: readonly number[]): string {
  const [first = 0] = microBatches;
  const last = microBatches.at(-1) ?? 0;
  const follow = last - first + 1 === microBatches.length;
  return follow ? `${first} to ${last}` : microBatches.join(", ");
}

function memoryLines(program: StepProgram): string[] {
  const rows = [...program.buffers].map(([name, spec]) => [
    `  ${name}`,
    size(residentBytes(spec)),
    [
      ...(program.shared.has(name) ? ["shared"] : []),
      ...(spec.parts === undefined ? [] : [`of ${size(spec.byteLength)}`]),
    ].join(", "),
  ]);
  const resident = residentMemory(program);
  const kinds = [...resident].map(([kind, bytes]) => [`  ${kind}`, size(bytes), ""]);
  return [
    "buffers, as far as this rank takes memory for them",
    ...columns(rows),
    "",
    "memory of this rank, beside what the process itself takes",
    ...columns([...kinds, ["  in all", size(totalOf(resident)), ""]]),
  ];
}

/** Of one micro-batch, as one piece and as it is cut; what is computed again for that. */
function activationLines(before: StepGraph, after: StepGraph): string[] {
  const pieces = after.tasks.filter(isPiece);
  const whole = `activations of a micro-batch: ${size(passMemory(before).within)} in one piece`;
  if (pieces.length === 1) return [whole];
  const { between, within } = passMemory(after);
  const flops = (step: StepGraph) =>
    step.tasks
      .filter(isPiece)
      .reduce((sum, { graph }) => sum + flopsOf(step.graphs.get(graph) as Graph), 0);
  const again = flops(after) - flops(before);
  const repeated = again === 0 ? "" : `; ${operations(again)} computed again`;
  return [
    whole,
    `  in ${pieces.length} pieces: ${size(between)} between them, ${size(within)} within the largest${repeated}`,
  ];
}

function stageLines(plan: StepProgram, placeOf: (group: string) => number): string[] {
  const { totals, compute: computed, commit } = plan.sides[0];
  const compute = [...totals, ...computed];
  const row = (stage: Stage): string[][] => {
    if (stage.mode === "tasks") return taskRows(stage);
    if (stage.mode === "collective") {
      const bytes = stage.call.kind === "barrier" ? "" : size(collectiveBytes(stage));
      return [[`  ${stage.name}`, stage.call.kind, `${bytes} over ${stage.group}`.trim()]];
    }
    const runs = stage.runs.length === 1 ? "1 run" : `${stage.runs.length} runs`;
    return [[`  ${stage.name}`, runs, operations(flopsOfStages(plan, [stage]))]];
  };
  const taskRows = ({ name, tasks }: TaskStage) => [
    [`  ${name}, by readiness`, `${tasks.length} tasks`, ""],
    ...tasks.flatMap(({ work }) =>
      work.flatMap(row).map(([what = "", ...rest]) => [`  ${what}`, ...rest]),
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

/** When the tasks of the last micro-batch would run, and how much of the communication is beside computation. */
function overlapLines(program: StepProgram, speeds: Speeds): string[] {
  const { sides, arena } = program;
  const stage = sides[0].compute.find((each): each is TaskStage => each.mode === "tasks");
  if (stage === undefined || arena === undefined) return [];
  const timeline = planTimeline(program, stage, speeds);
  const { communicating, computing, exposed } = timeline;
  const beside = percent(communicating - exposed, communicating);
  return [
    "",
    "the last micro-batch, when what is ready",
    ...timelineLines(timeline),
    `computing ${time(computing)}, communicating ${time(communicating)}: ${beside} of it beside computation, ${time(exposed)} exposed`,
    `between pieces: ${size(arena.byteLength)} (${size(arena.withoutReuse)} without reuse)`,
    `at ${operations(speeds.flopsPerSecond)}/s, ${size(speeds.bytesPerSecond)}/s and ${time(speeds.latency)} of latency`,
  ];
}

function timelineLines({ tasks }: Timeline): string[] {
  return columns(
    tasks.map(({ task, flops, bytes, start, end }) => [
      `  ${task.lane === COMPUTE ? task.name : `  ${task.name}`}`,
      task.lane === COMPUTE ? operations(flops) : size(bytes),
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
