/**
 * The journal of a rank's commit, in memory that the ranks of its node map: the rank writes it, and
 * after its loss another rank reads it and finishes the commit (`program/journal.ts`).
 */
import type { Binding, HostBuffer, HostTensor } from "../engine/index.ts";
import { assert } from "../errors.ts";
import {
  DECISION_BYTES,
  DECISION_NUMBERS,
  type JournalPlan,
  journalPlaces,
} from "../program/index.ts";
import { type RunBindings, runBindings } from "./run-bindings.ts";

/** What the ranks of a step have decided: it is committed. */
export interface Decision {
  /** The number of committed steps afterwards. */
  readonly steps: number;
  /** The factor of the gradients in the update. */
  readonly gradientScale: number;
  /** Whether the batch has no label that counts, so that nothing is updated. */
  readonly isEmpty: boolean;
  readonly loss: number;
  readonly gradientNorm: number;
}

/** The decision without its steps, in the order in which it is written. */
export function numbersOf({ gradientScale, isEmpty, loss, gradientNorm }: Decision): number[] {
  return [gradientScale, Number(isEmpty), loss, gradientNorm];
}

export function decisionOf(steps: number, numbers: Iterable<number>): Decision {
  const [gradientScale = 0, isEmpty, loss = 0, gradientNorm = 0] = numbers;
  return { steps, gradientScale, isEmpty: isEmpty === 1, loss, gradientNorm };
}

/** The last decision that the rank of a journal has made; undefined before the first. */
export function decisionIn(memory: HostBuffer): Decision | undefined {
  const { buffer, byteOffset } = memory.view(0, DECISION_BYTES);
  // The number of steps is read first: it is written last.
  const steps = Atomics.load(new Int32Array(buffer, byteOffset + STEPS_AT, 1), 0);
  if (steps === 0) return undefined;
  return decisionOf(steps, new Float64Array(buffer, byteOffset, DECISION_NUMBERS));
}

const STEPS_AT = 8 * DECISION_NUMBERS;

export class Journal {
  readonly #decision: Float64Array;
  /** The number of steps; 0 before the first decision. */
  readonly #steps: Int32Array;
  readonly #lanes: Int32Array;
  readonly #done: Int32Array;
  readonly #slots: readonly Uint8Array[];
  readonly #free: number[];

  constructor(memory: HostBuffer, plan: JournalPlan) {
    const places = journalPlaces(plan);
    const words = (at: number, count: number) => {
      const { buffer, byteOffset } = memory.view(at, 4 * count);
      return new Int32Array(buffer, byteOffset, count);
    };
    const { buffer, byteOffset } = memory.view(0, DECISION_BYTES);
    this.#decision = new Float64Array(buffer, byteOffset, DECISION_NUMBERS);
    this.#steps = words(STEPS_AT, 1);
    this.#lanes = words(places.lanes, plan.lanes);
    this.#done = words(places.done, plan.runs);
    this.#slots = Array.from({ length: plan.lanes }, (_, lane) =>
      memory.view(places.slots + lane * plan.slotBytes, plan.slotBytes),
    );
    this.#free = this.#slots.map((_, lane) => lane);
  }

  decide(decision: Decision): void {
    this.#decision.set(numbersOf(decision));
    // The number of steps is written last: a reader that finds it finds the others too.
    Atomics.store(this.#steps, 0, decision.steps);
  }

  /** Puts back what runs have overwritten that began and are not done. */
  undo(placesOf: (run: number) => readonly HostTensor[]): void {
    for (const [lane, word] of this.#lanes.entries()) {
      if (word > 0 && !this.isDone(word - 1)) {
        let at = 0;
        for (const { bytes } of placesOf(word - 1)) {
          bytes.set(this.#slot(lane).subarray(at, at + bytes.byteLength));
          at += bytes.byteLength;
        }
      }
      Atomics.store(this.#lanes, lane, 0);
    }
  }

  /** Whether this run of the last decided step is done. */
  isDone(run: number): boolean {
    return Atomics.load(this.#done, run) === Atomics.load(this.#steps, 0);
  }

  /** Copies what a run will overwrite, and returns the lane that has the copy. */
  begin(run: number, places: readonly HostTensor[]): number {
    const lane = this.#free.pop();
    assert(lane !== undefined, "there are no more runs at once than the journal has lanes");
    let at = 0;
    for (const { bytes } of places) {
      this.#slot(lane).set(bytes, at);
      at += bytes.byteLength;
    }
    Atomics.store(this.#lanes, lane, run + 1);
    return lane;
  }

  end(run: number, lane: number): void {
    Atomics.store(this.#done, run, Atomics.load(this.#steps, 0));
    Atomics.store(this.#lanes, lane, 0);
    this.#free.push(lane);
  }

  #slot(lane: number): Uint8Array {
    return this.#slots[lane] as Uint8Array;
  }
}

/**
 * Runs what the journal does not have as done; what was interrupted is undone first.
 * @param places what each run overwrites
 */
export async function runLogged(
  bindings: readonly Binding[],
  places: readonly (readonly HostTensor[])[],
  journal: Journal,
  options: Omit<RunBindings, "around">,
): Promise<void> {
  const placesOf = (run: number) => places[run] as readonly HostTensor[];
  journal.undo(placesOf);
  const left = [...bindings.entries()].filter(([run]) => !journal.isDone(run));
  await runBindings(left, {
    ...options,
    around: (run) => {
      const lane = journal.begin(run, placesOf(run));
      return () => journal.end(run, lane);
    },
  });
}
