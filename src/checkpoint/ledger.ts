/**
 * The ledger of a run: which positions of the sample order its steps have committed, and which
 * worker computed which of them. Each step is entered with the positions that its workers really
 * have; one that would commit a position again, or leave one out, is refused before it is made. It
 * is data, and lies in each checkpoint.
 */
import { z } from "zod";
import { assert } from "../errors.ts";

/** Positions [start, end) of the sample order. */
export interface Positions {
  readonly start: number;
  readonly end: number;
}

/** Consecutive steps that the same workers shared in the same way. */
export interface Stretch {
  /** Steps [first, next), counted from 0. */
  readonly first: number;
  readonly next: number;
  /** The positions of all of them. */
  readonly start: number;
  readonly end: number;
  /** Of workers; 0 for those that do not come and go. */
  readonly generation: number;
  /** The samples of each step that each worker computed, by rank. */
  readonly samples: readonly number[];
}

export interface LedgerRecord {
  /** The step and the position that the first stretch begins with. */
  readonly begins: { readonly step: number; readonly position: number };
  /** Without a gap, in order. */
  readonly stretches: readonly Stretch[];
  /** Samples committed before that, with another batch or by an older version. */
  readonly earlier: number;
  /** Samples of committed steps that were lost when the run fell back, and are computed again. */
  readonly repeated: number;
}

const count = z.int().min(0);
export const ledgerSchema = z
  .strictObject({
    begins: z.strictObject({ step: count, position: count }),
    stretches: z.array(
      z.strictObject({
        first: count,
        next: count,
        start: count,
        end: count,
        generation: count,
        samples: z.array(count),
      }),
    ),
    earlier: count,
    repeated: count,
  })
  .refine(isWhole, "has a gap, a step twice, or samples that are not those of its steps");

/** Whether each stretch begins where the one before ends, and its steps have all of its samples. */
function isWhole({ begins, stretches }: LedgerRecord): boolean {
  let { step, position } = begins;
  for (const { first, next, start, end, samples } of stretches) {
    const each = samples.reduce((sum, count) => sum + count, 0);
    if (first !== step || next <= first || start !== position) return false;
    if (each === 0 || end - start !== each * (next - first)) return false;
    [step, position] = [next, end];
  }
  return true;
}

/** The step and the position that come after all that a ledger has. */
export function endOf({ begins, stretches }: LedgerRecord): LedgerRecord["begins"] {
  const last = stretches.at(-1);
  return last === undefined ? begins : { step: last.next, position: last.end };
}

/** What a step is about to commit. */
export interface Entry {
  /** Counted from 0. */
  readonly step: number;
  /** The positions that the step owns. */
  readonly positions: Positions;
  readonly generation: number;
  /** The positions that each worker has, by rank, each list ascending. */
  readonly parts: readonly (readonly Positions[])[];
}

const EMPTY: LedgerRecord = {
  begins: { step: 0, position: 0 },
  stretches: [],
  earlier: 0,
  repeated: 0,
};

export class Ledger {
  #record: LedgerRecord;
  /** The next step, and its first position. */
  #step: number;
  #end: number;

  /** Goes on with what a checkpoint, or another worker, has entered. Default: an empty ledger. */
  constructor(record: LedgerRecord = EMPTY) {
    const { step, position } = endOf(record);
    [this.#record, this.#step, this.#end] = [record, step, position];
  }

  get record(): LedgerRecord {
    return this.#record;
  }

  /** Steps that were entered, or lie before. */
  get steps(): number {
    return this.#step;
  }

  /** The first position that was not committed. */
  get position(): number {
    return this.#end;
  }

  get samplesCommitted(): number {
    const { stretches, earlier } = this.#record;
    return stretches.reduce((sum, { start, end }) => sum + end - start, earlier);
  }

  get samplesRepeated(): number {
    return this.#record.repeated;
  }

  /** @throws where the step would commit a position that was committed, or leave one out: a bug */
  check({ step, positions, parts }: Entry): void {
    assert(step === this.#step, `step ${step} follows ${this.#step} entered steps`);
    let at = this.#end;
    for (const { start, end } of parts.flat().toSorted((a, b) => a.start - b.start)) {
      assert(start >= at, `step ${step} would commit position ${start} again`);
      assert(start === at, `step ${step} would leave out positions ${at} to ${start - 1}`);
      assert(end > start, `step ${step} has positions ${start} to ${end}`);
      at = end;
    }
    assert(
      positions.start === this.#end && positions.end === at,
      `step ${step} owns positions ${positions.start} to ${positions.end}, and its workers have ${this.#end} to ${at}`,
    );
  }

  /** Enters a step that was committed. */
  commit(entry: Entry): void {
    this.check(entry);
    const { step, positions, generation, parts } = entry;
    const samples = parts.map((part) => part.reduce((sum, { start, end }) => sum + end - start, 0));
    const next = { next: step + 1, end: positions.end };
    const { stretches, ...rest } = this.#record;
    const last = stretches.at(-1);
    const goesOn =
      last?.generation === generation &&
      last.samples.join() === samples.join() &&
      last !== undefined;
    const added = goesOn
      ? [...stretches.slice(0, -1), { ...last, ...next }]
      : [...stretches, { first: step, start: positions.start, generation, samples, ...next }];
    this.#record = { ...rest, stretches: added };
    [this.#step, this.#end] = [step + 1, positions.end];
  }

  /** The run has fallen back to where the ledger ends, from a committed step that ended there. */
  fellBackFrom(position: number): void {
    const lost = Math.max(0, position - this.#end);
    this.#record = { ...this.#record, repeated: this.#record.repeated + lost };
  }
}
