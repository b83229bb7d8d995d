/**
 * What one of the workers that divide a model has of it and computes, in numbers: read off the step
 * as the strategies rewrite it that would run.
 */
import type { Graph } from "../graph/index.ts";
import { isSampleAxis, isShard, type Mesh, PIPELINE } from "../mesh/index.ts";
import { type Work, workOf } from "../ops/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  bytesOf,
  type ComputeTask,
  cutAtExchanges,
  type ExchangeTask,
  isOfKind,
  isPiece,
  localStep,
  passMemory,
  passTasks,
  type StagePart,
  type StepGraph,
  stageNeeds,
  stageRanks,
  stepFacts,
  timetableOfStages,
  valueOf,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import type { Link } from "./buckets.ts";
import type { DividedPipeline, DividedStep, Exchanged } from "./divided-part.ts";
import { keptBy, partOfRank, summedBy } from "./divided-stages.ts";
import { type RankSpeed, secondsOfConversion } from "./sharding/costs.ts";
import { applyStrategies, type Strategy } from "./strategy.ts";

/** How workers reach each other: those that divide matrices or sequences, and those of other stages. */
export interface PartLinks {
  readonly parts: Link;
  readonly stages: Link;
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
  const { pipeline } = local;
  const ranks = mesh.axes.find(({ name }) => name === PIPELINE)?.size ?? 1;
  const rankOf = pipeline === undefined ? [] : stageRanks(pipeline.schedule, ranks);
  const exchanged = exchangesOf(cut, { mesh, links, rankOf });
  const pieces = local.tasks.filter(isPiece);
  const termsRead = (own: readonly ComputeTask[]) => termBytes(local, mesh, summedBy(local, own));
  if (pipeline === undefined) {
    const pass = passMemory(cut);
    const whole = together([...exchanged.values()]);
    const part = { facts: { ...facts, pass, inPieces: () => pass }, pass, brought: 0 };
    return {
      parts: [{ ...part, exchanged: whole, termsRead: termsRead(pieces) }],
      pipeline: undefined,
    };
  }
  const parts = Array.from({ length: ranks }, (_, rank) => {
    const isOwn = (stage: number | undefined) => rankOf[stage as number] === rank;
    const own = pieces.filter(({ stage }) => isOwn(stage?.stage));
    const between = [...exchanged].flatMap(([name, each]) =>
      isOwn(Number.parseInt(name, 10)) ? [each] : [],
    );
    return {
      ...partOfRank(local, facts, own, pieces),
      exchanged: together(between),
      termsRead: termsRead(own),
    };
  });
  return { parts, pipeline: timesOf(local, pipeline.schedule, exchanged) };
}

/** How long the turns of a timetable take, and what stages keep. */
function timesOf(
  step: StepGraph,
  schedule: string,
  exchanged: ReadonlyMap<string, Exchanged>,
): DividedPipeline {
  const pieces = step.tasks.filter(isPiece);
  const work = new Map<string, readonly Work[]>();
  for (const piece of pieces) {
    const name = nameOf(piece);
    const own = workOf(step.graphs.get(piece.graph) as Graph);
    work.set(name, [...(work.get(name) ?? []), ...own]);
  }
  const stages = [...new Set(pieces.map(({ stage }) => stage?.stage as number))];
  const kept = new Map(stages.map((stage) => [stage, keptBy(step, pieces, stage)]));
  const keyOf = ({ stage, direction }: StagePart) => `${stage}/${direction}`;
  const parts = pieces.map(({ stage }) => stage);
  return {
    timetable: (size) => timetableOfStages(schedule, size, parts),
    needs: stageNeeds(pieces),
    workOf: (turn) => work.get(keyOf(turn)) ?? [],
    exchangedIn: (turn) => exchanged.get(keyOf(turn))?.seconds ?? 0,
    keptOf: (stage) => kept.get(stage) ?? 0,
  };
}

/**
 * Ranks of some axes compute parts of the same samples, and have terms of gradients, which each
 * sums a part of and writes to the others.
 */
function termBytes(step: StepGraph, mesh: Mesh, summed: readonly string[]): number {
  const reduced = step.tasks.filter(isOfKind("reduce")).flatMap(({ axes }) => axes);
  const over = mesh.axes.filter(({ name }) => !isSampleAxis(name) && reduced.includes(name));
  return over.reduce((sum, { name: axis, size }) => {
    const terms = summed.filter((name) => !(valueOf(step, name).partOver ?? []).includes(axis));
    return sum + (2 * bytesOf(step, terms) * (size - 1)) / size;
  }, 0);
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
  {
    mesh,
    links: { parts, stages },
    rankOf,
  }: { readonly mesh: Mesh; readonly links: PartLinks; readonly rankOf: readonly number[] },
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
    // What another stage of the same rank has made is read where it lies.
    const own = rankOf[piece.stage?.stage ?? 0];
    const read = piece.inputs.filter(
      (name) => makers.has(name) && rankOf[makers.get(name) ?? 0] !== own,
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
