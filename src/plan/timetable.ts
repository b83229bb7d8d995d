/**
 * The timetable of a pipeline: which stages of the model each rank computes for which micro-batch,
 * and in which order. It is data, as text that one can read and edit: a line for each rank,
 * `0: 0F0 0F1 0B0 0B1`, where `1B2` is the backward part of stage 1 for micro-batch 2. A stage is in
 * one line, and a line has one stage or several.
 *
 * A stage whose line has W has a backward part in two: B makes the gradients that the stage before
 * waits for, and W all others, which are those of the stage's own parameters.
 */
import { LockstepError } from "../errors.ts";

const DIRECTIONS = ["F", "B", "W"] as const;
export type Direction = (typeof DIRECTIONS)[number];

/** What a rank computes: a part of one of its stages, for a micro-batch. */
export interface Turn {
  readonly stage: number;
  readonly direction: Direction;
  readonly microBatch: number;
}

/** The turns of each rank, in order. */
export type Timetable = readonly (readonly Turn[])[];

export interface TimetableSize {
  readonly ranks: number;
  /** Of one pipeline. */
  readonly microBatches: number;
  /** How many micro-batches of the step are computed at once, and count as one here. Default: 1. */
  readonly atOnce?: number;
}

/** The stages whose backward part is in two. */
export function splitStages(timetable: Timetable): ReadonlySet<number> {
  const later = timetable.flat().filter(({ direction }) => direction === "W");
  return new Set(later.map(({ stage }) => stage));
}

export function formatTurn({ stage, direction, microBatch }: Turn): string {
  return `${stage}${direction}${microBatch}`;
}

export function formatTimetable(timetable: Timetable): string {
  return timetable.map((turns, rank) => `${rank}: ${turns.map(formatTurn).join(" ")}`).join("\n");
}

/** @throws INVALID_OPTION with the line and what is wrong in it */
export function parseTimetable(text: string): Timetable {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return lines.map((line, rank) => {
    const [, number, rest = ""] = /^\s*(\d+):(.*)$/.exec(line) ?? [];
    if (Number(number ?? Number.NaN) !== rank)
      throw wrong(`line ${rank + 1} begins with "${rank}:"`);
    return rest
      .trim()
      .split(/\s+/)
      .filter((word) => word !== "")
      .map((word): Turn => {
        const [, stage, direction, microBatch] = /^(\d+)([FBW])(\d+)$/.exec(word) ?? [];
        if (direction === undefined) {
          throw wrong(`"${word}" is written as 0F0 (stage; F, B or W; micro-batch)`);
        }
        return {
          stage: Number(stage),
          direction: direction as Direction,
          microBatch: Number(microBatch),
        };
      });
  });
}

/**
 * By stage: the rank in whose line it is.
 * @throws INVALID_OPTION unless each of so many ranks has a line, and each stage is in one of them
 */
export function ranksOfStages(timetable: Timetable, ranks: number): number[] {
  if (timetable.length !== ranks) {
    throw wrong(`it has a line for each of ${ranks} ranks, and this has ${timetable.length}`);
  }
  const found = new Map<number, number>();
  for (const [rank, turns] of timetable.entries()) {
    if (turns.length === 0) throw wrong(`each rank computes a stage, and rank ${rank} none`);
    for (const { stage } of turns) {
      const other = found.get(stage) ?? rank;
      if (other !== rank) {
        throw wrong(
          `each stage is in one line, and stage ${stage} in those of ${other} and ${rank}`,
        );
      }
      found.set(stage, rank);
    }
  }
  const stages = [...found].sort(([a], [b]) => a - b);
  const missing = stages.findIndex(([stage], at) => stage !== at);
  if (missing >= 0) {
    throw wrong(
      `it has all stages from 0 on, and this has ${stages[missing]?.[0]} without ${missing}`,
    );
  }
  return stages.map(([, rank]) => rank);
}

/**
 * Checks that each stage is computed by one rank, with all its parts for each micro-batch, and parts
 * of the backward pass in the order of the micro-batches, in which their gradients are summed.
 * @throws INVALID_OPTION
 */
export function checkTimetable(
  timetable: Timetable,
  { ranks, microBatches, atOnce = 1 }: TimetableSize,
): void {
  const isSplit = splitStages(timetable);
  for (const [stage, rank] of ranksOfStages(timetable, ranks).entries()) {
    const turns = (timetable[rank] as readonly Turn[]).filter((turn) => turn.stage === stage);
    for (const direction of partsOf(stage, isSplit)) {
      const own = turns.filter((turn) => turn.direction === direction);
      const numbers = own.map(({ microBatch }) => microBatch);
      const sorted = direction === "F" ? numbers.toSorted((a, b) => a - b) : numbers;
      const isEach = sorted.every((number, at) => number === at) && sorted.length === microBatches;
      if (isEach) continue;
      const order = direction === "F" ? "" : ", in their order";
      const counted = atOnce === 1 ? "" : ` (${atOnce}, one on each thread, count as one)`;
      throw wrong(
        `rank ${rank} has ${stage}${direction} for each micro-batch from 0 to ${microBatches - 1}${counted} once${order}`,
      );
    }
  }
}

function partsOf(stage: number, isSplit: ReadonlySet<number>): readonly Direction[] {
  return isSplit.has(stage) ? DIRECTIONS : ["F", "B"];
}

function wrong(what: string): LockstepError {
  return new LockstepError("INVALID_OPTION", `The timetable of the pipeline: ${what}.`);
}

/** The parts of stages whose results a part of a stage needs. */
export type Needs = (
  turn: Pick<Turn, "stage" | "direction">,
) => readonly Pick<Turn, "stage" | "direction">[];

/** A turn with what has to be known before it, and who has to know of it. */
export interface PlannedTurn extends Turn {
  /** Ranks of which a message is awaited before the turn. */
  readonly awaits: readonly number[];
  /** Ranks that are told when the turn is done. */
  readonly tells: readonly number[];
  /** Where the values that the stage makes for this micro-batch lie: slots are used again. */
  readonly slot: number;
}

export interface PlannedTimetable {
  readonly turns: readonly (readonly PlannedTurn[])[];
  /** The slots of each rank, which its stages share. */
  readonly slots: readonly number[];
}

/**
 * Plans messages between ranks, and the slots in which what a stage makes lies. Each rank knows of
 * another how many turns it has done, because messages carry all that their sender knows (vector
 * clocks: Fidge, "Timestamps in message-passing systems", 1988): so no message is sent that says
 * nothing new, and a slot is used again only when all its readers are known to be done.
 * @throws INVALID_OPTION for a timetable in which ranks would wait for each other for ever
 */
export function planTimetable(timetable: Timetable, needs: Needs): PlannedTimetable {
  const ranks = timetable.length;
  const rankOf = new Map<number, number>();
  const indexOf = new Map<string, number>();
  for (const [rank, turns] of timetable.entries()) {
    for (const [index, turn] of turns.entries()) {
      rankOf.set(turn.stage, rank);
      indexOf.set(formatTurn(turn), index);
    }
  }
  /** How many turns of each rank each rank knows to be done; and what was known after each turn. */
  const knows = timetable.map(() => new Array<number>(ranks).fill(0));
  const after = timetable.map((): number[][] => []);
  const planned = timetable.map((): (PlannedTurn & { tells: number[] })[] => []);
  const slots = timetable.map((): Pick<Turn, "stage" | "microBatch">[] => []);
  const place = ({ stage, direction }: Pick<Turn, "stage" | "direction">, microBatch: number) => {
    const rank = rankOf.get(stage) as number;
    return { rank, index: indexOf.get(formatTurn({ stage, direction, microBatch })) as number };
  };
  const isSplit = splitStages(timetable);
  const parts = [...rankOf.keys()].flatMap((stage) =>
    partsOf(stage, isSplit).map((direction) => ({ stage, direction })),
  );
  /** The parts of stages that read what a stage makes. */
  const readersOf = (stage: number) =>
    parts.filter((part) => part.stage === stage || needs(part).some((own) => own.stage === stage));
  const readers = new Map([...rankOf.keys()].map((stage) => [stage, readersOf(stage)]));
  const isDone = (known: readonly number[], turn: { rank: number; index: number }) =>
    (known[turn.rank] as number) > turn.index;
  const step = (rank: number): boolean => {
    const index = (planned[rank] as PlannedTurn[]).length;
    const turn = timetable[rank]?.[index];
    if (turn === undefined) return false;
    const { stage, microBatch } = turn;
    const needed = needs(turn).map((part) => place(part, microBatch));
    if (needed.some((of) => (planned[of.rank]?.length ?? 0) <= of.index)) return false;
    const known = knows[rank] as number[];
    const awaits: number[] = [];
    // The latest turn of each rank says the most.
    for (const of of needed.toSorted((a, b) => b.index - a.index)) {
      if (of.rank === rank || isDone(known, of)) continue;
      awaits.push(of.rank);
      planned[of.rank]?.[of.index]?.tells.push(rank);
      const told = after[of.rank]?.[of.index] as readonly number[];
      for (const [other, count] of told.entries()) {
        known[other] = Math.max(known[other] as number, count);
      }
    }
    // By slot: the stage and the micro-batch that have it.
    const own = slots[rank] as Pick<Turn, "stage" | "microBatch">[];
    let slot = own.findIndex((other) => other.stage === stage && other.microBatch === microBatch);
    if (slot < 0) {
      const isFree = (other: (typeof own)[number]) =>
        (readers.get(other.stage) ?? []).every((part) =>
          isDone(known, place(part, other.microBatch)),
        );
      const free = [...own.keys()].filter((at) => isFree(own[at] as (typeof own)[number]));
      // Stages take memory of different sizes, so one of the same stage is best.
      slot = free.find((at) => own[at]?.stage === stage) ?? free[0] ?? own.length;
      own[slot] = { stage, microBatch };
    }
    known[rank] = index + 1;
    (after[rank] as number[][]).push([...known]);
    planned[rank]?.push({ ...turn, awaits, tells: [], slot });
    return true;
  };
  for (let moved = true; moved; ) {
    moved = false;
    for (let rank = 0; rank < ranks; rank++) while (step(rank)) moved = true;
  }
  for (const [rank, turns] of timetable.entries()) {
    const next = turns[(planned[rank] as PlannedTurn[]).length];
    if (next !== undefined) {
      throw wrong(`rank ${rank} would wait for ever before "${formatTurn(next)}"`);
    }
  }
  return { turns: planned, slots: slots.map(({ length }) => length) };
}

/**
 * When each turn of each rank ends, if each begins as soon as it can.
 * @param secondsOf what a turn takes
 */
export function endsOf(
  { turns }: PlannedTimetable,
  needs: Needs,
  secondsOf: (turn: Turn) => number,
): number[][] {
  const ends = turns.map((): number[] => []);
  const done = new Map<string, number>();
  for (let moved = true; moved; ) {
    moved = false;
    for (const [rank, own] of turns.entries()) {
      const before = ends[rank] as number[];
      for (let turn = own[before.length]; turn !== undefined; turn = own[before.length]) {
        const { microBatch } = turn;
        const ready = needs(turn).map((part) => done.get(formatTurn({ ...part, microBatch })));
        if (ready.includes(undefined)) break;
        const end = Math.max(before.at(-1) ?? 0, ...(ready as number[])) + secondsOf(turn);
        before.push(end);
        done.set(formatTurn(turn), end);
        moved = true;
      }
    }
  }
  return ends;
}

/** The part of the time of all ranks in which they have nothing to compute, in [0, 1). */
export function bubbleOf(
  planned: PlannedTimetable,
  needs: Needs,
  secondsOf: (turn: Turn) => number,
): number {
  const ends = endsOf(planned, needs, secondsOf);
  const whole = Math.max(...ends.flat()) * ends.length;
  const busy = planned.turns.flat().reduce((sum, turn) => sum + secondsOf(turn), 0);
  return (whole - busy) / whole;
}
