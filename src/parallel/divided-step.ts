/**
 * What one of the workers that divide a model has of it and computes, in numbers: read off the step
 * as the strategies rewrite it that would run.
 */
import type { Graph } from "../graph/index.ts";
import { isShard, type Mesh, PIPELINE } from "../mesh/index.ts";
import { flopsOf } from "../ops/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  bytesOf,
  type ComputeTask,
  cutAtExchanges,
  type ExchangeTask,
  isPiece,
  localStep,
  type Needs,
  type PassMemory,
  passMemory,
  passTasks,
  peakOfIntermediates,
  planArena,
  type StepFacts,
  type StepGraph,
  stageNeeds,
  stepFacts,
  type Turn,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import type { Link } from "./buckets.ts";
import { type RankSpeed, secondsOfConversion } from "./sharding/costs.ts";
import { applyStrategies, type Strategy } from "./strategy.ts";

/** What goes between the workers that divide a model, for a micro-batch. */
export interface Exchanged {
  readonly seconds: number;
  /** What a worker takes of others. */
  readonly bytes: number;
  /** The memory in which it gives, for a micro-batch that runs. */
  readonly given: number;
}

/** What a worker has of the model. */
export interface ModelPart {
  readonly facts: StepFacts;
  /** Of a micro-batch: what pieces pass on, and the most inside one of them. */
  readonly pass: PassMemory;
  readonly exchanged: Exchanged;
  /** The bytes of parameters that lie with other stages, and are brought here. */
  readonly brought: number;
}

/** How workers reach each other: those that divide matrices or sequences, and those of other stages. */
export interface PartLinks {
  readonly parts: Link;
  readonly stages: Link;
}

export interface DividedStep {
  /** By stage; one part without a pipeline. */
  readonly parts: readonly ModelPart[];
  readonly pipeline:
    | {
        readonly schedule: string;
        readonly needs: Needs;
        /** Of one micro-batch. */
        readonly flopsOf: (turn: Turn) => number;
        readonly exchangedIn: (turn: Turn) => number;
      }
    | undefined;
}

/** @throws INVALID_OPTION for a step that cannot be divided so */
export function divideStep(
  step: StepGraph,
  optimizer: Optimizer,
  { strategies, mesh }: { readonly strategies: readonly Strategy[]; readonly mesh: Mesh },
  links: PartLinks,
): DividedStep {
  const local = localStep(applyStrategies(strategies, step, mesh), mesh);
  const cut = cutAtExchanges(local);
  const facts = stepFacts(local, optimizer);
  const exchanged = exchangesOf(cut, mesh, links);
  const { pipeline } = local;
  if (pipeline === undefined) {
    const pass = passMemory(cut);
    const whole = together([...exchanged.values()]);
    const part = { facts: { ...facts, pass, inPieces: () => pass }, pass, brought: 0 };
    return { parts: [{ ...part, exchanged: whole }], pipeline: undefined };
  }
  const pieces = local.tasks.filter(isPiece);
  const stages = mesh.axes.find(({ name }) => name === PIPELINE)?.size ?? 1;
  const parts = Array.from({ length: stages }, (_, stage) => {
    const own = [...exchanged].filter(([name]) => name.startsWith(`${stage}/`));
    const between = together(own.map(([, each]) => each));
    return stageOf(local, facts, { pieces, stage, exchanged: between });
  });
  const flops = new Map<string, number>();
  for (const piece of pieces) {
    const name = nameOf(piece);
    flops.set(name, (flops.get(name) ?? 0) + flopsOf(local.graphs.get(piece.graph) as Graph));
  }
  const keyOf = ({ stage, direction }: Pick<Turn, "stage" | "direction">) =>
    `${stage}/${direction}`;
  return {
    parts,
    pipeline: {
      schedule: pipeline.schedule,
      needs: stageNeeds(pieces),
      flopsOf: (turn) => flops.get(keyOf(turn)) ?? 0,
      exchangedIn: (turn) => exchanged.get(keyOf(turn))?.seconds ?? 0,
    },
  };
}

function nameOf({ stage }: ComputeTask): string {
  return stage === undefined ? "" : `${stage.stage}/${stage.direction}`;
}

function together(all: readonly Exchanged[]): Exchanged {
  return {
    seconds: all.reduce((sum, { seconds }) => sum + seconds, 0),
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
    // Two buffers take turns, and all exchanges use them.
    given: 2 * Math.max(0, ...all.map(({ given }) => given)),
  };
}

/** What is exchanged within the pass and between its stages, by the part of a stage. */
function exchangesOf(
  step: StepGraph,
  mesh: Mesh,
  { parts, stages }: PartLinks,
): Map<string, Exchanged> {
  const found = new Map<string, Exchanged>();
  const add = (name: string, { seconds, bytes, given }: Exchanged) => {
    const before = found.get(name) ?? { seconds: 0, bytes: 0, given: 0 };
    found.set(name, {
      seconds: before.seconds + seconds,
      bytes: before.bytes + bytes,
      given: Math.max(before.given, given),
    });
  };
  let part = "";
  for (const task of passTasks(step)) {
    if (task.kind === "exchange") add(part, exchangeOf(step, task, mesh, parts));
    else part = nameOf(task);
  }
  const pieces = step.tasks.filter(isPiece);
  const makers = new Map(
    pieces.flatMap(({ stage, outputs }) => outputs.map((name) => [name, stage?.stage] as const)),
  );
  for (const piece of pieces) {
    const read = piece.inputs.filter(
      (name) => makers.has(name) && makers.get(name) !== piece.stage?.stage,
    );
    if (read.length === 0) continue;
    const bytes = bytesOf(step, read);
    const seconds = stages.latency + bytes / stages.bytesPerSecond;
    add(nameOf(piece), { seconds, bytes, given: 0 });
  }
  return found;
}

function exchangeOf(
  step: StepGraph,
  { axis, from, to, shifted, inputs, outputs }: ExchangeTask,
  mesh: Mesh,
  { latency, bytesPerSecond }: Link,
): Exchanged {
  const ranks = mesh.axes.find(({ name }) => name === axis)?.size ?? 1;
  const sizeOf = (name: string) => byteLength(valueOf(step, name).type);
  // With these, seconds are bytes.
  const counting: RankSpeed = {
    flopsPerSecond: Number.POSITIVE_INFINITY,
    bytesPerSecond: Number.POSITIVE_INFINITY,
    link: { latency: 0, bytesPerSecond: 1 },
  };
  const bytes = inputs.reduce((sum, name, at) => {
    if (shifted?.[at] === true) return sum + sizeOf(name);
    const whole = isShard(from[at]) ? ranks * sizeOf(name) : sizeOf(name);
    return sum + Math.floor(secondsOfConversion(whole, from[at], to[at], ranks, counting));
  }, 0);
  const given = inputs.reduce((sum, name) => sum + sizeOf(name), 0);
  const isNone = outputs.length === 0;
  return { seconds: isNone ? 0 : latency + bytes / bytesPerSecond, bytes, given };
}

/** What a stage has: parameters lie with the stage that makes their gradients. */
function stageOf(
  step: StepGraph,
  whole: StepFacts,
  {
    pieces,
    stage,
    exchanged,
  }: {
    readonly pieces: readonly ComputeTask[];
    readonly stage: number;
    readonly exchanged: Exchanged;
  },
): ModelPart {
  const own = pieces.filter((piece) => piece.stage?.stage === stage);
  const last = own.at(-1)?.stage?.direction;
  const isSum = (name: string) => /gradient|term/.test(valueOf(step, name).role);
  const made = own.flatMap(({ outputs }) => outputs);
  const summed = made.filter(isSum);
  const kept = new Set(
    own
      .filter((piece) => piece.stage?.direction !== last)
      .flatMap(({ outputs }) => outputs.filter(isSum)),
  );
  const held = new Set(
    summed
      .filter((name) => valueOf(step, name).role.includes("gradient"))
      .map((name) => valueName("parameter", valueOf(step, name).of))
      .filter((name) => step.values.has(name)),
  );
  const read = new Set(
    own
      .flatMap(({ inputs }) => inputs)
      .filter((name) => valueOf(step, name).role === "parameter" && !held.has(name)),
  );
  const parameters = bytesOf(step, [...held]);
  const share = parameters / Math.max(1, whole.parameters);
  const others = new Set(
    pieces.filter((piece) => !own.includes(piece)).flatMap(({ inputs }) => inputs),
  );
  const end = { inputs: made.filter((name) => others.has(name) || kept.has(name)), outputs: [] };
  const arena = planArena([...own, end], (name) => {
    const { role, type } = valueOf(step, name);
    return role === "activation" || kept.has(name) ? byteLength(type) : undefined;
  });
  const inside = own.map(({ graph }) => peakOfIntermediates(step.graphs.get(graph) as Graph));
  const pass = { between: arena.byteLength, within: Math.max(0, ...inside) };
  const facts: StepFacts = {
    ...whole,
    parameters,
    gradients: bytesOf(step, summed),
    slots: whole.slots * share,
    wholeSlots: whole.wholeSlots * share,
    scratch: whole.scratch * share,
    largestGradient: Math.min(whole.largestGradient, parameters),
    flops: own.reduce((sum, { graph }) => sum + flopsOf(step.graphs.get(graph) as Graph), 0),
    pass,
    inPieces: () => pass,
  };
  return { facts, pass, exchanged, brought: bytesOf(step, [...read]) };
}
