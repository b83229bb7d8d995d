/**
 * Moves a trainer from one group of ranks to the next, between two steps or after its group has
 * failed. Nothing that was committed is lost, and a commit that was interrupted is finished: all
 * sums of gradients were where they are needed before any rank decided (two-phase commit). What a
 * lost rank held is read where it lies, in memory that the others of its node still map, or in that
 * of its buddy on another node.
 */
import { type Group, tellNumbers } from "../collectives/index.ts";
import {
  type Decision,
  decisionIn,
  decisionOf,
  type Instance,
  Journal,
  numbersOf,
} from "../execute/index.ts";
import { axesFor } from "../parallel/index.ts";
import type { StepGraph } from "../plan/index.ts";
import { Heirs, type JournalPlan, type StepProgram, stageOf } from "../program/index.ts";
import { makeBeside } from "./beside.ts";
import { isPlaceLost, keepingPlaces } from "./places.ts";
import { type Planned, planOf, programOf } from "./planned.ts";
import { lostState } from "./routes.ts";
import { aloneOf, runStages } from "./run-stages.ts";
import { writeScalars } from "./state.ts";
import type { TrainerOptions } from "./step-types.ts";
import { allOf, type Estate, giveState, receiveState, takeOver, tellLost } from "./transfer.ts";

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
 * @param standings of this rank: the last, and that of a group whose meeting failed at its end. A
 *   newcomer has none. They are closed here as soon as they are not needed any more
 * @param prepared the step of one process, if it was built before
 * @returns undefined if no rank has a state
 * @throws PEER_LOST when a lost rank held what no other can read; what the new group throws
 */
export async function moveTo(
  options: TrainerOptions,
  standings: Standing[],
  prepared?: StepGraph,
): Promise<Standing | undefined> {
  const group = options.ranks?.group;
  const before = await settle(group, standings);
  const told = await tell(group, before);
  if (told.every(({ steps }) => steps < 0)) return undefined;
  const finishing = before && finishingOf(before, told);
  let standing = before;
  if (before !== undefined && finishing !== undefined) await startCommit(before, finishing);
  await group?.barrier();
  if (before !== undefined && finishing !== undefined) {
    standing = await endCommit(before, finishing);
  }
  const came = await tell(group, standing);
  const steps = Math.max(...came.map((rank) => rank.steps));
  const parallel = axesFor(options.parallel, group?.size ?? 1);
  const planned = planOf({ ...options, parallel }, before?.planned.step ?? prepared);
  const now = keepingPlaces(planned.plan, came);
  if (before !== undefined && isPlaceLost(before.planned.plan, planned.plan, now, steps)) {
    throw lostState();
  }
  const { engine, ranks, offloadFolder: folder } = options;
  const kept = now[group?.rank ?? 0]?.steps === steps ? standing : undefined;
  const instance = await makeBeside({ engine, plan: planned.plan, ranks, folder, before: kept });
  const last = came.find(({ decision }) => decision?.steps === steps)?.decision;
  const moved = { options, planned, instance, from: 0, steps, last } as const;
  try {
    await fill(moved, standing, { told, now });
  } catch (error) {
    instance.close();
    throw error;
  }
  // From here on the new generation is whole. Who fails before it knows that keeps both.
  standings.push(moved);
  await group?.barrier();
  standings.pop();
  for (const old of standings.splice(0)) old.instance.close();
  return moved;
}

/**
 * The standings of all ranks must be of one generation. A rank that has gone on to the next one
 * knows that all of its ranks had filled it; the others find that out here.
 */
async function settle(
  group: Group | undefined,
  standings: Standing[],
): Promise<Standing | undefined> {
  const own = standings[0] === undefined ? -1 : generationOf(standings[0]);
  const all = group === undefined ? [[own]] : await tellNumbers(group.transport, [own]);
  const newest = Math.max(...all.map(([generation = -1]) => generation));
  const chosen = standings.find((standing) => generationOf(standing) === newest);
  for (const standing of standings.splice(0)) {
    if (standing === chosen) standings.push(standing);
    else standing.instance.close();
  }
  return chosen;
}

function generationOf({ options }: Standing): number {
  return options.ranks?.group.transport.generation ?? 0;
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

/** Of a decision of the next step, this rank's own or one that it sees on its node, it tells too. */
function toldOf(standing: Standing): Told {
  const { steps, last } = standing;
  const seen = neighboursOf(standing).map((rank) => decisionAt(standing, rank));
  const next = seen.find((decision) => decision?.steps === steps + 1);
  return { place: placeOf(standing), steps, decision: next ?? last };
}

function placeOf({ options }: Standing): number {
  return options.ranks?.group.rank ?? 0;
}

/** The ranks of the group before that read each other's memory, node by node. */
function nodesOf({ options }: Standing): readonly (readonly number[])[] {
  const transport = options.ranks?.group.transport;
  if (transport === undefined) return [[0]];
  return transport.share === undefined
    ? transport.nodes.flat().map((rank) => [rank])
    : transport.nodes;
}

/** The ranks of this node in the group before, this one among them. */
function neighboursOf(standing: Standing): readonly number[] {
  const own = placeOf(standing);
  return nodesOf(standing).find((ranks) => ranks.includes(own)) ?? [own];
}

/** What a rank of this node has decided last. */
function decisionAt(standing: Standing, rank: number): Decision | undefined {
  const { instance, planned } = standing;
  const { journal } = planned.plan;
  if (journal === undefined) return undefined;
  return decisionIn(instance.host(journal.buffer, rank));
}

/** How a rank finishes the commit of a step. */
interface Finishing {
  readonly decision: Decision;
  /** The lost ranks of this node, by their old numbers, whose updates this rank finishes too. */
  readonly lost: readonly number[];
}

/**
 * Undefined where this rank has nothing to finish: no rank has decided, or it has the step already,
 * or every rank updates for itself. Then a rank that has not committed the step takes the state of
 * one that has.
 */
function finishingOf(before: Standing, told: readonly Told[]): Finishing | undefined {
  if (before.planned.plan.journal === undefined) return undefined;
  const isNext = ({ decision }: Told) => decision?.steps === before.steps + 1;
  const decision = told.find(isNext)?.decision;
  if (decision === undefined) return undefined;
  const near = neighboursOf(before);
  const living = told.filter(({ place }) => near.includes(place));
  const lost = near.filter((rank) => !living.some(({ place }) => place === rank));
  const behind = living.filter(({ steps }) => steps === before.steps);
  const first = Math.min(...behind.map(({ place }) => place));
  return { decision, lost: first === placeOf(before) ? lost : [] };
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
  await runStages(instance, aloneOf(plan.sides[from].commit), { journal: own });
  for (const rank of lost) {
    const theirs = programOf(options, planned, rank);
    const layout = theirs.journal as JournalPlan;
    const journal = new Journal(instance.host(layout.buffer, rank), layout);
    journal.decide(decision);
    await instance.addGraphs(theirs);
    const stages = aloneOf(theirs.sides[from].commit).flatMap((stage) =>
      "runs" in stage ? (stageOf(stage, theirs.shared, rank) ?? []) : [],
    );
    await runStages(instance, stages, { journal });
  }
}

/** Ends a commit without the other ranks: what they have updated stays with them until `fill`. */
async function endCommit(before: Standing, { decision }: Finishing): Promise<Standing> {
  const { planned, instance, from } = before;
  const after = { ...before, steps: decision.steps, last: decision };
  if (decision.isEmpty) return after;
  const { commit } = planned.plan.sides[from];
  for (const stage of commit.slice(aloneOf(commit).length)) {
    if ("runs" in stage) await instance.run(stage);
  }
  return { ...after, from: from === 0 ? 1 : 0 };
}

/** What all ranks have told, before and after they have finished a commit. */
interface Meeting {
  readonly told: readonly Told[];
  readonly now: readonly Told[];
}

/** Brings the state to all ranks: each takes what it can read, and is sent the rest. */
async function fill(
  moved: Standing,
  before: Standing | undefined,
  meeting: Meeting,
): Promise<void> {
  const group = moved.options.ranks?.group;
  const { now } = meeting;
  const ranks = now.map((_, index) => index);
  const holds = (index: number) => now[index]?.steps === moved.steps;
  const own = group?.rank ?? 0;
  const teller = ranks.findIndex(holds);
  if (before === undefined || !holds(own)) {
    return receiveState(moved, group as Group, teller);
  }
  const estate = estateOf(before, moved, meeting);
  const newcomers = ranks.filter((index) => !holds(index));
  if (estate.parts.some((part) => estate.heirs.giversOf(part).length === 0)) {
    if (own === teller && group !== undefined) await tellLost(group, newcomers);
    throw lostState();
  }
  const isWhole = (old: number) =>
    estate.parts.every((part) => estate.heirs.memoryFor(old, part) !== undefined);
  const oldOf = (index: number) => (holds(index) ? now[index]?.place : undefined);
  const receivers = ranks.flatMap((peer) => {
    const old = oldOf(peer);
    if (peer === own || (old !== undefined && isWhole(old))) return [];
    return [{ peer, before: old, plan: programOf(moved.options, moved.planned, peer) }];
  });
  await allOf([
    takeOver(estate, moved, group),
    ...(group === undefined ? [] : [giveState(estate, moved, group, receivers)]),
  ]);
}

/** What this rank knows of the state before, which is the same on all ranks that have it. */
function estateOf(before: Standing, { steps }: Standing, { told, now }: Meeting): Estate {
  const { held, kept, gathered, owners } = before.planned.plan;
  const places = new Map(
    [...now.entries()].flatMap(([index, rank]) =>
      rank.steps === steps ? [[rank.place, index] as const] : [],
    ),
  );
  const finishing = told.filter((rank) => rank.steps < steps && places.has(rank.place));
  const heirs = new Heirs({
    nodes: nodesOf(before),
    owners,
    living: [...places.keys()].sort((a, b) => a - b),
    finishing: finishing.map(({ place }) => place),
  });
  const parts = [...held, ...kept, ...(finishing.length > 0 ? gathered : [])];
  return { holding: before, heirs, parts, rank: placeOf(before), places };
}

export function journalOf(instance: Instance, { journal }: StepProgram): Journal | undefined {
  return journal && new Journal(instance.host(journal.buffer), journal);
}
