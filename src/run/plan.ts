/**
 * Describes as text what a rank of a run would do in a step. It only plans, without an engine or
 * another process.
 */
import { evenTopology } from "../mesh/index.ts";
import { checkRank } from "../net/index.ts";
import type { Model } from "../nn/index.ts";
import {
  applyStrategies,
  bucketBytes,
  checkWorkers,
  chooseParallel,
  DEFAULT_FLOPS,
  type Disk,
  type Parallel,
  type ParallelOptions,
  wholeWork,
} from "../parallel/index.ts";
import { buildStep, describeStep, type StepGraph, stepToJson } from "../plan/index.ts";
import {
  COMPUTE,
  collectiveBytes,
  flopsOfStages,
  lower,
  type MessageStage,
  messageBytes,
  planTimeline,
  programToJson,
  receivedBytes,
  type Speeds,
  type Stage,
  type StepProgram,
  type TaskStage,
  type Timeline,
} from "../program/index.ts";
import { elementCount } from "../tensor/index.ts";
import { parameterBytes } from "../train/index.ts";
import { columns, operations, percent, size, time } from "./columns.ts";
import { exchangeLines } from "./plan-exchanges.ts";
import { activationLines, memoryLines } from "./plan-memory.ts";
import { parallelLines, predictionLines } from "./plan-parallel.ts";
import { pipelineLines } from "./plan-stages.ts";
import type { Run } from "./run.ts";
import { wholeWorkTold } from "./whole-work.ts";

export interface PlanOptions extends ParallelOptions {
  /** The workers of all nodes together. */
  readonly workers: number;
  /**
   * The number of nodes. Each has equally many workers, which read each other's memory in place.
   * Default: 1.
   */
  readonly machines?: number;
  readonly rank: number;
  readonly speeds: Speeds;
  /**
   * The bytes that a worker reads and writes in a second. If it is stated, `flopsPerSecond` is the
   * speed of products alone.
   */
  readonly memorySpeed?: number | undefined;
  /** Between workers of a machine, for what they exchange within a pass. Default: as measured. */
  readonly within?: Pick<Speeds, "bytesPerSecond" | "latency"> | undefined;
  /** Bytes that each worker may have. Default: no limit. */
  readonly memory?: number | undefined;
  /** Where each worker may keep what is needed only for updates. Default: nowhere. */
  readonly disk?: Disk | undefined;
  /** Of gradients that travel together between machines; chosen from the speeds unless told. */
  readonly bucketBytes?: number | undefined;
}

export interface RankPlan {
  readonly model: Model;
  readonly parallel: Parallel;
  /** The step of one process. */
  readonly alone: StepGraph;
  /** The step as the strategies have rewritten it. */
  readonly step: StepGraph;
  readonly program: StepProgram;
}

/** @throws INVALID_OPTION when the workers cannot share the run this way */
export function planRank(run: Run, options: PlanOptions): RankPlan {
  const { rank } = options;
  const { parallel, ...chosen } = chosenFor(run, options);
  const { mesh, topology, strategies } = parallel;
  const step = applyStrategies(strategies, chosen.alone, mesh);
  const ground = { mesh, topology };
  const program = lower(step, { ground, rank, optimizer: run.optimizer });
  return { ...chosen, parallel, step, program };
}

/** What is assumed of machines where nothing is said. */
const SPEEDS: Speeds = { flopsPerSecond: DEFAULT_FLOPS, bytesPerSecond: 1e9, latency: 1e-4 };

/**
 * How workers share a run, where it states nothing.
 * @throws INVALID_OPTION, OUT_OF_MEMORY where they cannot
 */
export function findParallel(
  run: Run,
  options: Pick<PlanOptions, "workers" | "machines" | "memory">,
): Parallel {
  return chosenFor(run, { ...options, rank: 0, speeds: SPEEDS }).parallel;
}

function chosenFor(run: Run, options: PlanOptions): Pick<RankPlan, "model" | "parallel" | "alone"> {
  const { workers, rank, machines: count = 1, speeds } = options;
  check(run, options, rank, count);
  const size = run.batch / run.microBatches;
  const model = run.model.build({ batch: size, mode: "train" });
  const bucket =
    options.bucketBytes ?? run.bucketBytes ?? bucketBytes(speeds, parameterBytes(model));
  const { optimizer, microBatches, clipNorm, reproducible = true } = run;
  const attention = options.attention ?? run.attention;
  const alone = buildStep({ model, optimizer, microBatches, clip: clipNorm, attention });
  const { memory = Number.POSITIVE_INFINITY, disk, memorySpeed, within } = options;
  const { flopsPerSecond } = speeds;
  const parallel = chooseParallel({
    topology: evenTopology(workers, count),
    step: alone,
    optimizer,
    machine: { memory, lanes: 1, flopsPerSecond, memorySpeed, link: speeds, within, disk },
    parallel: options.parallel ?? run.parallel,
    zero: options.zero ?? run.zero,
    recompute: options.recompute ?? run.recompute,
    offload: options.offload ?? run.offload,
    buddies: options.buddies ?? run.buddies,
    timetable: options.timetable ?? run.timetable,
    attention,
    combination: reproducible ? "tree" : "any",
    buckets: { bucketBytes: bucket },
  });
  return { model, parallel, alone };
}

/**
 * Returns the step of all ranks and the program of one as JSON, which can be read back to the same
 * bits.
 * @throws as `describePlan` does
 */
export function planAsJson(run: Run, options: PlanOptions): string {
  const { step, program } = planRank(run, options);
  return `${JSON.stringify({ step: stepToJson(step), program: programToJson(program) })}\n`;
}

/** @throws INVALID_OPTION when the workers cannot share the run this way */
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
    ...predictionLines(parallel),
    ...describeStep(step).map((line) => `  ${line}`),
    ...wholeWorkTold(wholeWork(alone, step, parallel.mesh)),
    "",
    ...pipelineLines(step, {
      ranks: parallel.mesh.axes.find(({ name }) => name === step.pipeline?.axis)?.size ?? 1,
      microBatches: own.length,
      flopsPerSecond: speeds.flopsPerSecond,
      memorySpeed: options.memorySpeed,
    }),
    ...memoryLines(plan),
    ...activationLines(asWritten(run, options, { model, alone }), step),
    ...exchangeLines(step),
    "",
    ...stageLines(plan, placeOf),
    ...overlapLines(plan, speeds),
    "",
  ].join("\n");
}

/** The step of one process with attention as the model writes it. */
function asWritten(
  run: Run,
  options: PlanOptions,
  { model, alone }: Pick<RankPlan, "model" | "alone">,
): StepGraph {
  if ((options.attention ?? run.attention) !== "ring") return alone;
  const { optimizer, microBatches, clipNorm } = run;
  return buildStep({ model, optimizer, microBatches, clip: clipNorm });
}

function check(run: Run, options: PlanOptions, rank: number, machines: number): void {
  const { workers } = options;
  const parallel = options.parallel ?? run.parallel;
  // Where nothing is stated, workers may divide the model.
  const isStated = (parallel ?? options.zero ?? run.zero) !== undefined;
  if (isStated) checkWorkers(workers, run.microBatches, parallel);
  checkRank(rank, workers);
  evenTopology(workers, machines);
}

/** `4 to 7`, or `0, 4` where they do not follow each other. */
function listed(microBatches: readonly number[]): string {
  const [first = 0] = microBatches;
  const last = microBatches.at(-1) ?? 0;
  const follow = last - first + 1 === microBatches.length;
  return follow ? `${first} to ${last}` : microBatches.join(", ");
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
    if (stage.mode === "signal") return [];
    if (stage.mode === "messages") return messageRows(stage);
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
    ...networkLines([...compute, ...commit]),
  ];
}

/** What a rank whose stages hand something to other machines sends in a step. */
function networkLines(stages: readonly Stage[]): string[] {
  const messages = stages.filter((stage): stage is MessageStage => stage.mode === "messages");
  if (messages.length === 0) return [];
  const bytesOf = (isSent: boolean) =>
    size(messages.reduce((sum, stage) => sum + messageBytes(stage, isSent), 0));
  return [
    `stages lie on several machines: activations and their gradients go over the network, ${bytesOf(true)} from this rank and ${bytesOf(false)} to it in a step`,
  ];
}

/** What is sent over nodes; the ranks that receive it have rows for the same. */
function messageRows(stage: MessageStage): string[][] {
  const bytes = messageBytes(stage, true);
  return bytes === 0 ? [] : [[`  ${stage.name}`, "messages", `${size(bytes)} to other nodes`]];
}

/**
 * Returns lines about when the tasks of the last micro-batch would run, and how much of the
 * communication is hidden by computation.
 */
function overlapLines(program: StepProgram, speeds: Speeds): string[] {
  const { sides, arena } = program;
  const stages = sides[0].compute.filter((each): each is TaskStage => each.mode === "tasks");
  const timelines = stages.map((stage) => planTimeline(program, stage, speeds));
  const timeline = timelines.at(-1);
  if (timeline === undefined || arena === undefined) return [];
  const sum = (of: (one: Timeline) => number) => timelines.reduce((all, one) => all + of(one), 0);
  const communicating = sum((one) => one.communicating);
  const computing = sum((one) => one.computing);
  const exposed = sum((one) => one.exposed);
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
