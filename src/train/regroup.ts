/**
 * Moves a trainer from one group of ranks to the next, between two steps or after its group has
 * failed. Nothing that was committed is lost, and a commit that was interrupted is finished: its
 * ranks had all summed their gradients before any of them decided (two-phase commit), and what a
 * lost rank held is read where it lies, in memory that the others of its node still map.
 */
import { type Group, tellNumbers } from "../collectives/index.ts";
import { assert, LockstepError } from "../errors.ts";
import {
  type Decision,
  decisionIn,
  decisionOf,
  type Instance,
  instantiate,
  Journal,
  numbersOf,
} from "../execute/index.ts";
import { axesFor } from "../parallel/index.ts";
import {
  type CollectiveStage,
  type JournalPlan,
  type Stage,
  type StepProgram,
  stageOf,
} from "../program/index.ts";
import { bytesPerElement } from "../tensor/index.ts";
import { type Planned, planOf, programOf } from "./planned.ts";
import { runStages } from "./run-stages.ts";
import { writeScalars } from "./state.ts";
import type { TrainerOptions } from "./step-types.ts";
import { copyState, receiveState, sendState } from "./transfer.ts";

/** A trainer between two steps, or in the middle of a commit that its group has not finished. */
export interface Standing {
  readonly options: TrainerOptions;
  readonly planned: Planned;
  readonly instance: Instance;
  /** The set of states that was committed last. */
  readonly from: 0 | 1;
  /** Committed steps. */
  readonly steps: number;
  /** The decision of the last committed step; undefined before the first. */
  readonly last: Decision | undefined;
}

/** What a rank tells the others of its new group. */
interface Told {
  /** The rank in the group before; -1 for a newcomer. */
  readonly place: number;
  /** Committed steps; -1 for a newcomer. */
  readonly steps: number;
  /** The last decision; that of the next step, if its commit has begun and not ended. */
  readonly decision: Decision | undefined;
}

const NEWCOMER: Told = { place: -1, steps: -1, decision: undefined };

/**
 * Continues with the ranks of `options`, or alone. All of them call this together: trainers of one
 * group before, and newcomers, which have no standing. After a failure the standing is still good,
 * so the trainer can move to yet another group.
 * @returns undefined if no rank has a state
 * @throws PEER_LOST when a lost rank held what no other can read; what the new group throws
 */
export async function moveTo(
  options: TrainerOptions,
  before?: Standing,
): Promise<Standing | undefined> {
  const group = options.ranks?.group;
  const told = await tell(group, before);
  if (told.every(({ steps }) => steps < 0)) return undefined;
  const finishing = before && finishingOf(before, told);
  let standing = before;
  if (before !== undefined && finishing !== undefined) await startCommit(before, finishing);
  await group?.barrier();
  if (before !== undefined && finishing !== undefined) {
    standing = await endCommit(before, finishing);
  }
  const now = await tell(group, standing);
  const steps = Math.max(...now.map((rank) => rank.steps));
  const parallel = axesFor(options.parallel, group?.size ?? 1);
  const planned = planOf({ ...options, parallel }, before?.planned.step);
  const instance = await instantiate(options.engine, planned.plan, group, options.offloadFolder);
  try {
    const last = now.find(({ decision }) => decision?.steps === steps)?.decision;
    const moved = { options, planned, instance, from: 0, steps, last } as const;
    await fill(moved, standing, now);
    await group?.barrier();
    return moved;
  } catch (error) {
    instance.close();
    throw error;
  }
}

async function tell(group: Group | undefined, standing?: Standing): Promise<Told[]> {
  const own = standing === undefined ? NEWCOMER : toldOf(standing);
  if (group === undefined) return [own];
  const { place, steps, decision = NONE } = own;
  const numbers = [place, steps, decision.steps, ...numbersOf(decision)];
  const all = await tellNumbers(group.transport, numbers);
  return all.map(([at = -1, done = -1, next = 0, ...rest]) => ({
    place: at,
    steps: done,
    decision: next === 0 ? undefined : decisionOf(next, rest),
  }));
}

/** Stands for no decision in a message. */
const NONE: Decision = { steps: 0, gradientScale: 0, isEmpty: false, loss: 0, gradientNorm: 0 };

function toldOf({ options, instance, planned, steps, last }: Standing): Told {
  const { journal } = planned.plan;
  const next = journal && decisionIn(instance.host(journal.buffer));
  const isPending = next !== undefined && next.steps > steps;
  const place = options.ranks?.group.rank ?? 0;
  return { place, steps, decision: isPending ? next : last };
}

/** How a rank finishes the commit of a step. */
interface Finishing {
  readonly decision: Decision;
  /** The lost ranks, by their old numbers, whose updates this rank finishes too. */
  readonly lost: readonly number[];
}

/**
 * Undefined where this rank has nothing to finish: no rank has decided, or it has the step already,
 * or every rank updates for itself. Then a rank that has not committed the step takes the state of
 * one that has.
 */
function finishingOf(before: Standing, told: readonly Told[]): Finishing | undefined {
  if (before.planned.plan.journal === undefined) return undefined;
  const size = before.options.ranks?.group.size ?? 1;
  const living = told.filter(({ place }) => place >= 0);
  const lost = Array.from({ length: size }, (_, rank) => rank).filter(
    (rank) => !living.some(({ place }) => place === rank),
  );
  const decisions = [
    ...living.map(({ decision }) => decision),
    // What a lost rank had decided counts only where it is seen: in the memory of its node.
    ...lost.map((rank) => decisionAt(before, rank)),
  ];
  const decision = decisions.find((made) => made?.steps === before.steps + 1);
  if (decision === undefined) return undefined;
  const first = living
    .filter(({ steps }) => steps === before.steps)
    .reduce((least, { place }) => Math.min(least, place), Number.POSITIVE_INFINITY);
  return { decision, lost: first === toldOf(before).place ? lost : [] };
}

/** What a rank of the group before has decided, if its journal lies in memory of this node. */
function decisionAt({ instance, planned }: Standing, rank: number): Decision | undefined {
  const { buffer } = planned.plan.journal as JournalPlan;
  return instance.canReach(buffer, rank) ? decisionIn(instance.host(buffer, rank)) : undefined;
}

/** Updates what this rank and the lost ranks have to update. */
async function startCommit(before: Standing, { decision, lost }: Finishing): Promise<void> {
  if (decision.isEmpty) return;
  const { options, planned, instance, from, steps } = before;
  const { plan } = planned;
  const { gradientScale } = decision;
  writeScalars(instance, plan, options, { step: steps + 1, gradientScale });
  const own = journalOf(instance, plan);
  own?.decide(decision);
  await runStages(instance, alone(plan.sides[from].commit), { journal: own });
  for (const rank of lost) {
    const theirs = programOf(options, planned, rank);
    const layout = theirs.journal as JournalPlan;
    if (!instance.canReach(layout.buffer, rank)) throw lostState(rank);
    const journal = new Journal(instance.host(layout.buffer, rank), layout);
    journal.decide(decision);
    await instance.addGraphs(theirs);
    const stages = alone(theirs.sides[from].commit).flatMap((stage) =>
      stage.mode === "collective" || stage.mode === "tasks"
        ? []
        : (stageOf(stage, theirs.shared, rank) ?? []),
    );
    await runStages(instance, stages, { journal });
  }
}

/** Takes what the other ranks have updated. None of them writes any more. */
async function endCommit(before: Standing, { decision }: Finishing): Promise<Standing> {
  const { planned, instance, from } = before;
  const after = { ...before, steps: decision.steps, last: decision };
  if (decision.isEmpty) return after;
  const { commit } = planned.plan.sides[from];
  for (const stage of commit.slice(alone(commit).length)) {
    if (stage.mode === "collective") gatherInPlace(before, stage);
    else await instance.run(stage);
  }
  return { ...after, from: from === 0 ? 1 : 0 };
}

/** The stages before the first that needs other ranks. */
function alone(stages: readonly Stage[]): readonly Stage[] {
  const first = stages.findIndex(({ mode }) => mode === "collective" || mode === "tasks");
  return first < 0 ? stages : stages.slice(0, first);
}

/** What an all-gather does, without the other ranks. */
function gatherInPlace(
  { instance, planned, options }: Standing,
  { group, call, data }: CollectiveStage,
): void {
  if (call.kind === "barrier") return;
  assert(call.kind === "allGather" && data !== undefined, "a commit has no other collectives");
  const ranks = planned.plan.groups.get(group) ?? [];
  const width = bytesPerElement(call.dtype);
  let at = data.byteOffset;
  for (const [index, rank] of ranks.entries()) {
    const bytes = (call.counts[index] as number) * width;
    if (rank !== options.ranks?.group.rank && bytes > 0) {
      if (!instance.canReach(data.buffer, rank)) throw lostState(rank);
      instance
        .host(data.buffer)
        .view(at, bytes)
        .set(instance.host(data.buffer, rank).view(at, bytes));
    }
    at += bytes;
  }
}

/** Brings the state to all ranks: each copies what it can read, newcomers are sent it. */
async function fill(
  moved: Standing,
  before: Standing | undefined,
  told: readonly Told[],
): Promise<void> {
  const group = moved.options.ranks?.group;
  const rank = group?.rank ?? 0;
  const ranks = told.map((_, index) => index);
  const holds = (index: number) => told[index]?.steps === moved.steps;
  const holders = ranks.filter(holds);
  if (holds(rank) && before !== undefined) {
    await copyState(before, moved);
    for (const peer of ranks.filter((index) => !holds(index))) {
      const plan = programOf(moved.options, moved.planned, peer);
      await sendState(before, { group: group as Group, peer, plan, holders });
    }
    return;
  }
  await receiveState(moved, { group: group as Group, holders });
}

export function journalOf(instance: Instance, { journal }: StepProgram): Journal | undefined {
  return journal && new Journal(instance.host(journal.buffer), journal);
}

function lostState(rank: number): LockstepError {
  return new LockstepError(
    "PEER_LOST",
    `Worker ${rank} is lost with a part of the state that no other worker can read.`,
    { hint: "Continue from the last checkpoint with --resume." },
  );
}
