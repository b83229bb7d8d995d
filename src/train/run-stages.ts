/**
 * Runs the stages of a step one after the other, and measures the time that a rank computes alone.
 */
import { assert } from "../errors.ts";
import type { Instance, Journal, StageOptions } from "../execute/index.ts";
import type { Stage, StepProgram } from "../program/index.ts";
import { toNumbers } from "../tensor/index.ts";
import type { Pacing } from "./pacing.ts";
import { updatesAlone } from "./places.ts";
import type { Ranks } from "./sharing.ts";
import type { BatchFields, FillBatch, StepRequest } from "./step-types.ts";

export async function runStages(
  instance: Instance,
  stages: readonly Stage[],
  options: StageOptions = {},
): Promise<void> {
  for (const stage of stages) await instance.run(stage, options);
}

/** The stages before the first that needs other ranks. */
export function aloneOf(stages: readonly Stage[]): readonly Stage[] {
  const first = stages.findIndex((stage) => !("runs" in stage));
  return first < 0 ? stages : stages.slice(0, first);
}

interface Commit {
  readonly commit: readonly Stage[];
  readonly journal: Journal | undefined;
  /** Called when this rank has the step. */
  readonly committed: () => void;
}

/**
 * Commits a step. A rank that updates all that it has by itself has the step after that, whoever is
 * lost while all wait for each other.
 */
export async function runCommit(
  instance: Instance,
  plan: StepProgram,
  { commit, journal, committed }: Commit,
): Promise<void> {
  const own = updatesAlone(plan) ? aloneOf(commit).length : commit.length;
  await runStages(instance, commit.slice(0, own), { journal });
  committed();
  await runStages(instance, commit.slice(own));
}

/**
 * Returns the seconds that this rank computes alone: everything before the first collective, and
 * segments beside collectives.
 * @param now returns the time in milliseconds
 */
export async function runMeasured(
  instance: Instance,
  stages: readonly Stage[],
  { now, signal }: { readonly now: () => number; readonly signal?: AbortSignal | undefined },
): Promise<number> {
  let milliseconds = 0;
  const around = async (body: () => Promise<void>) => {
    const start = now();
    await body();
    milliseconds += now() - start;
  };
  const found = stages.findIndex((stage) => !("runs" in stage));
  const alone = found < 0 ? stages.length : found;
  await around(() => runStages(instance, stages.slice(0, alone), { signal }));
  await runStages(instance, stages.slice(alone), { signal, around });
  return milliseconds / 1000;
}

/**
 * What ends the computation of a step. When the group has failed, the step cannot be committed, and
 * the next group waits for this rank.
 */
export function endOf({ signal }: StepRequest, ranks: Ranks | undefined): AbortSignal | undefined {
  const failed = ranks?.group.transport.signal;
  if (signal === undefined || failed === undefined) return signal ?? failed;
  return AbortSignal.any([signal, failed]);
}

/** What a rank wishes to happen after a step. */
export interface Wishes {
  readonly stop: boolean;
  readonly regroup: boolean;
}

/**
 * In the sum over ranks, wishes to stop count this much, and wishes to regroup 1. With fewer ranks
 * than this the sum is exact in float32.
 */
const STOP = 4096;

/** Writes what this rank tells the others in a step: its wishes, and its pace. */
export function tellOthers(
  instance: Instance,
  { stop, paces }: StepProgram,
  wishes: Wishes,
  pacing: Pacing | undefined,
): void {
  const own = STOP * Number(wishes.stop) + Number(wishes.regroup);
  if (stop !== undefined) instance.write(stop, [own]);
  if (paces !== undefined && pacing) instance.write(paces, pacing.told());
}

/** What some rank wishes, once the step is computed. */
export async function wishesOf(
  instance: Instance,
  { stop }: StepProgram,
  own: Wishes,
): Promise<Wishes> {
  if (stop === undefined) return own;
  const [sum = 0] = await instance.read(stop);
  return { stop: sum >= STOP, regroup: sum % STOP > 0 };
}

export interface EvaluationOf {
  readonly plan: StepProgram;
  /** The index of the set of states that was committed last. */
  readonly from: 0 | 1;
  /** The index of the batch's size among the sizes of the plan's evaluation. */
  readonly size: number;
  readonly fields: BatchFields | undefined;
}

/** Returns what one batch of held-out samples adds to the sums over all of them. */
export async function runEvaluation(
  instance: Instance,
  { plan, from, size, fields }: EvaluationOf,
  fill: FillBatch,
): Promise<number[]> {
  const stage = plan.sides[from].evaluate[size];
  const batch = plan.evaluation?.sizes[size];
  assert(stage !== undefined && batch !== undefined && fields !== undefined, "a planned size");
  await fill(fields);
  await instance.run(stage);
  const sums = toNumbers(instance.hostTensor(batch.sums));
  return sums.map((sum, index) => sum * (batch.factors[index] as number));
}
