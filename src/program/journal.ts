/**
 * The journal of a commit: before a run overwrites values that this rank alone has, they are copied
 * to a slot of the journal, and after it the run is marked as done. The journal lies in memory that
 * the ranks of the node map. When a rank is lost in the middle of its update, another rank finishes
 * it there: it puts the values of the interrupted runs back, and runs what is not done. After the
 * undo part of ARIES (Mohan et al., 1992).
 */
import { byteLength } from "../tensor/index.ts";
import { JOURNAL, SCALARS } from "./buffers.ts";
import type { ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";

/** The layout of a journal, in bytes. */
export interface JournalPlan {
  readonly buffer: string;
  /** The number of runs at once; each has a slot. */
  readonly lanes: number;
  readonly slotBytes: number;
  /** The number of runs of a commit that are logged. */
  readonly runs: number;
}

/** Where the parts of a journal begin. */
export interface JournalPlaces {
  /** A word for each lane: the run whose old values its slot has, counted from 1; 0 if none. */
  readonly lanes: number;
  /** A word for each run: the number of steps after which it was done last. */
  readonly done: number;
  readonly slots: number;
  readonly byteLength: number;
}

/** The decision of a step: numbers of 8 bytes, and the number of steps as a word. */
export const DECISION_NUMBERS = 4;
export const DECISION_BYTES = 8 * DECISION_NUMBERS + 4;
const LINE = 64;

export function journalPlaces({ lanes, slotBytes, runs }: JournalPlan): JournalPlaces {
  const done = LINE + 4 * lanes;
  const slots = LINE * Math.ceil((done + 4 * runs) / LINE);
  return { lanes: LINE, done, slots, byteLength: slots + lanes * slotBytes };
}

/** The places that a run overwrites. */
export function overwritten({ inputs, outputs }: Run): TensorRef[] {
  const before = Object.values(inputs);
  return Object.values(outputs).filter(({ buffer, byteOffset }) =>
    before.some((input) => input.buffer === buffer && input.byteOffset === byteOffset),
  );
}

/** @param lanes the most runs at once */
export function planJournal(
  program: ProgramBuilder,
  runs: readonly Run[],
  lanes: number,
): JournalPlan {
  const bytes = runs.map((run) =>
    overwritten(run).reduce((sum, { type }) => sum + byteLength(type), 0),
  );
  const plan = { buffer: JOURNAL, lanes, slotBytes: Math.max(0, ...bytes), runs: runs.length };
  program.buffer(JOURNAL, journalPlaces(plan).byteLength, "host");
  program.shared.add(JOURNAL);
  return plan;
}

/** The buffers that another rank needs to make these runs in this rank's place. */
export function buffersOf(runs: readonly Run[]): Set<string> {
  const refs = runs.flatMap(({ inputs, outputs }) => [
    ...Object.values(inputs),
    ...Object.values(outputs),
  ]);
  return new Set(refs.map(({ buffer }) => buffer).filter((buffer) => buffer !== SCALARS));
}

/**
 * A stage of another rank's commit, as this rank can run it there: in the memory of that rank, with
 * scalars of its own. Undefined if it needs what only that rank maps.
 */
export function stageOf(
  stage: RunStage,
  shared: ReadonlySet<string>,
  rank: number,
): RunStage | undefined {
  const there = (refs: Readonly<Record<string, TensorRef>>) =>
    Object.fromEntries(
      Object.entries(refs).map(([name, ref]) => [
        name,
        shared.has(ref.buffer) ? { ...ref, rank: ref.rank ?? rank } : ref,
      ]),
    );
  if (![...buffersOf(stage.runs)].every((buffer) => shared.has(buffer))) return undefined;
  const runs = stage.runs.map(({ graph, inputs, outputs: places }) => {
    return { graph, inputs: there(inputs), outputs: there(places) };
  });
  return { ...stage, runs };
}
