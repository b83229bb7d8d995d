/**
 * Finds bytes of the state that have changed by themselves (a memory error, a stray write), or that
 * differ between ranks that should hold the same. The state is summed right after a commit and again
 * before the next one is decided, and all ranks tell each other their sums. Wrong bytes are replaced
 * by those of a rank that has the right ones.
 */
import { type Group, tellNumbers } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { byteLength } from "../tensor/index.ts";
import { PARTS, type Told, type Wrong, wrongRanks } from "./replicas.ts";

import { type Guarded, piecesOf, placeOf, type Sum, sumOf } from "./state-sums.ts";
import type { Healed, TrainerOptions } from "./step-types.ts";

/** The part of the time of steps that checks may take, where nothing else is stated. */
const SHARE = 0.01;
/** What the messages of a check take, in seconds. */
const EXCHANGE_SECONDS = 2e-4;
/** The most steps between two checks, where nothing else is stated. */
const MOST_STEPS = 1000;
/** Bytes that are wrong again after they were replaced this many times are not replaced again. */
const MOST_ROUNDS = 3;

interface Measured {
  readonly sum: Sum;
  /** How long it took. */
  readonly ms: number;
}

type GuardOptions = Pick<TrainerOptions, "ranks" | "checkReplicas" | "onHealed">;

export class Guard {
  readonly #group: Group | undefined;
  /** The steps between two checks, if they are stated; 0: there are none. */
  readonly #every: number | undefined;
  readonly #onHealed: (healed: Healed) => void;
  readonly #now: () => number;
  /** The number of committed steps at which the next check is due. */
  #due: number;
  /** The number of committed steps when this began. */
  readonly #first: number;
  /** The number of committed steps when the state was found right for the last time. */
  #since: number;
  /** The number of committed steps when a step that was checked was decided for the last time. */
  #decided: number;
  #sealed: (Measured & { readonly steps: number }) | undefined;
  #beganAt = 0;
  /** The time of the last step without checks, and of the checks since a step has begun. */
  #stepMs = Number.POSITIVE_INFINITY;
  #checkMs = 0;

  /**
   * The first check is due at once.
   * @param steps committed steps
   * @param before what guarded the same state; by default the state is known to be right
   */
  constructor({ ranks, checkReplicas, onHealed }: GuardOptions, steps: number, before?: Guard) {
    this.#group = ranks?.group;
    this.#every = checkReplicas;
    this.#onHealed = onHealed ?? (() => undefined);
    this.#now = ranks?.now ?? (() => performance.now());
    this.#due = steps;
    this.#first = steps;
    this.#since = before === undefined ? steps : before.#since;
    this.#decided = before === undefined ? steps - 1 : before.#decided;
    if (before !== undefined) this.#stepMs = before.#stepMs;
  }

  /** Called before a step uses the state. */
  async begin(at: Guarded): Promise<void> {
    [this.#beganAt, this.#checkMs] = [this.#now(), 0];
    if (!this.#isFirst(at)) await this.#seal(at);
  }

  /**
   * All have just waited for each other, so in the first step only what several ranks hold is
   * compared, unless it is stated when checks are made.
   */
  #isFirst({ steps }: Guarded): boolean {
    return this.#every === undefined && steps === this.#first;
  }

  /** Called after a commit. */
  async committed(at: Guarded): Promise<void> {
    this.#stepMs = this.#now() - this.#beganAt - this.#checkMs;
    await this.#seal(at);
  }

  /**
   * Checks the state, if that is due or the step does not look sound, and heals it. All ranks call
   * it together, after the last use of the state before a commit is decided.
   * @param again computes the step again, once the state is healed
   * @throws DRIFT when wrong bytes cannot be replaced; and what the group throws
   */
  async check(
    at: Guarded,
    { again, isSound }: { readonly again: () => Promise<void>; readonly isSound: () => boolean },
  ): Promise<void> {
    if (this.#every === 0 || (at.steps < this.#due && isSound())) return;
    const steps = await this.#heal(at, again);
    this.#due = at.steps + steps;
    this.#decided = at.steps;
  }

  /** Returns the steps to the next check that ranks ask for, once all is right. */
  async #heal(at: Guarded, again: () => Promise<void>): Promise<number> {
    for (let round = 1; ; round++) {
      const { wrong, steps } = await this.#compare(at);
      if (wrong.length === 0) return steps;
      const since = this.#since;
      if (round > MOST_ROUNDS || wrong.some(({ right }) => right === undefined)) {
        // Nobody leaves before all know it: one who did not would go on with this state.
        await this.#group?.barrier().catch(() => undefined);
        throw drift(wrong, at.steps, since);
      }
      for (const one of wrong) {
        await replace(at, this.#group, one);
        this.#learn(at, one);
      }
      // Others may read in place what was replaced.
      await this.#group?.barrier();
      for (const { rank, right, isOld } of wrong) {
        const isExact = !isOld || this.#decided >= at.steps - 1;
        this.#onHealed({ step: at.steps, rank, from: right?.rank ?? rank, since, isExact });
      }
      await again();
    }
  }

  /** Checks the state between two steps, and heals it. All ranks call it together. @throws DRIFT */
  async verify(at: Guarded): Promise<void> {
    // The step that follows is checked when that is due: bits may flip while it is computed.
    if (this.#every !== 0) await this.#heal(at, () => Promise.resolve());
  }

  /** Compares the sums of all ranks. */
  async #compare(
    at: Guarded,
  ): Promise<{ readonly wrong: readonly Wrong[]; readonly steps: number }> {
    const now = await this.#measured(at);
    if (this.#sealed?.steps !== at.steps) this.#sealed = { steps: at.steps, ...now };
    const { sum: sealed, ms } = this.#sealed;
    const wish = this.#every ?? stepsBetween((ms + now.ms) / 1000, this.#stepMs / 1000);
    const { told, steps } = await tellSums(this.#group, { sealed, now: now.sum, at, wish });
    const wrong = wrongRanks(told);
    if (wrong.length === 0) this.#since = at.steps;
    return { wrong, steps };
  }

  /** Sums the state, if it will be checked before the next commit. */
  async #seal(at: Guarded): Promise<void> {
    if (this.#every === 0 || at.steps < this.#due || this.#sealed?.steps === at.steps) return;
    this.#sealed = { steps: at.steps, ...(await this.#measured(at)) };
  }

  async #measured(at: Guarded): Promise<Measured> {
    const began = this.#now();
    const sum = await sumOf(at, this.#isFirst(at) ? ["whole"] : PARTS);
    const ms = this.#now() - began;
    this.#checkMs += ms;
    return { sum, ms };
  }

  /** The sum of bytes that were replaced is now the right one. */
  #learn({ steps }: Guarded, { rank, part, right }: Wrong): void {
    if (rank !== (this.#group?.rank ?? 0) || right === undefined) return;
    const { sum = { whole: 0, own: 0 }, ms = 0 } = this.#sealed ?? {};
    this.#sealed = { steps, ms, sum: { ...sum, [part]: right.sum } };
  }
}

function stepsBetween(cost: number, step: number): number {
  const steps = Math.ceil((cost + EXCHANGE_SECONDS) / (SHARE * step));
  return Number.isFinite(steps) ? Math.min(MOST_STEPS, Math.max(1, steps)) : MOST_STEPS;
}

interface Telling {
  readonly sealed: Sum;
  readonly now: Sum;
  readonly at: Guarded;
  /** The steps to the next check that this rank asks for. */
  readonly wish: number;
}

/** Tells all ranks the sums of this one. `steps`: the most that any rank asks for. */
async function tellSums(
  group: Group | undefined,
  { sealed, now, at, wish }: Telling,
): Promise<{ readonly told: readonly Told[]; readonly steps: number }> {
  const place = placeOf(at.planned.plan);
  const own = [wish, place, ...PARTS.flatMap((part) => [sealed[part], now[part]])];
  const all = group === undefined ? [own] : await tellNumbers(group.transport, own);
  return {
    steps: Math.max(...all.map(([wished = 1]) => wished)),
    told: all.map(
      ([, where = 0, ...[sealedWhole = 0, nowWhole = 0, sealedOwn = 0, nowOwn = 0]]) => {
        const whole = { sealed: sealedWhole, now: nowWhole };
        return { place: where, whole, own: { sealed: sealedOwn, now: nowOwn } };
      },
    ),
  };
}

/** Brings the right bytes to a rank that has wrong ones. */
async function replace(
  at: Guarded,
  group: Group | undefined,
  { rank, part, right }: Wrong,
): Promise<void> {
  if (group === undefined || right === undefined) return;
  const { transport } = group;
  const { device } = at.instance;
  for (const piece of piecesOf(at)[part]) {
    const tensor = at.instance.tensor(piece);
    if (group.rank === right.rank) {
      await transport.send(rank, (await device.download(tensor)).bytes);
    } else if (group.rank === rank) {
      const bytes = new Uint8Array(byteLength(piece.type));
      await transport.receive(right.rank, bytes);
      device.upload(tensor, bytes);
    }
  }
}

function drift(wrong: readonly Wrong[], step: number, since: number): LockstepError {
  const ranks = [...new Set(wrong.map(({ rank }) => rank))];
  const who = `${ranks.length === 1 ? "worker" : "workers"} ${ranks.join(", ")}`;
  return new LockstepError("DRIFT", `${reasonOf(wrong, who, step)} The state is not saved.`, {
    hint: "The last checkpoint is good (--resume continues from it). If it happens again, test the memory of these workers' machines.",
    fields: { step, workers: ranks, since },
  });
}

function reasonOf(wrong: readonly Wrong[], who: string, step: number): string {
  if (wrong.every(({ right }) => right !== undefined)) {
    return `Bytes of the state of ${who} change by themselves after step ${step}, again and again.`;
  }
  if (wrong.some(({ isOld, right }) => isOld && right === undefined)) {
    return `After step ${step} the weights of ${who} are different, and no majority of workers has the same.`;
  }
  return `Bytes of the state of ${who} have changed by themselves after step ${step}, and no other worker has these bytes.`;
}
