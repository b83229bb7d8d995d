/** A worker enters its first generation, or its only group: with a trainer, and in agreement. */
import type { Group } from "../collectives/index.ts";
import { axesFor } from "../parallel/index.ts";
import {
  createTrainer,
  joinTrainer,
  meetRoom,
  type Prepared,
  prepare,
  type Ranks,
  type Trainer,
  type TrainerOptions,
} from "../train/index.ts";
import { agree, agreeOrLose, type Facts } from "./agree.ts";
import { isLoss, isTooFew, type Members } from "./members.ts";
import { unlessAborted } from "./unless-aborted.ts";

export interface EnterOptions {
  readonly ranks: Ranks | undefined;
  readonly members: Members | undefined;
  /** Aborting it ends the wait for a generation. */
  readonly asked: AbortSignal;
  readonly settings: Omit<TrainerOptions, "ranks"> & { readonly offloadFolder: string };
  /** Whether others are on other machines. */
  readonly isApart: boolean;
  /** Gives a new trainer the state that the run begins with. Returns the hash of that state. */
  readonly begin: (trainer: Trainer, group: Group | undefined) => Promise<string>;
  /** What all ranks must have alike. */
  readonly facts: (trainer: Trainer, state: string) => Facts;
  /** What all do once they agree. `isNew`: the state came from other workers. */
  readonly agreed: (trainer: Trainer, group: Group | undefined, isNew: boolean) => Promise<void>;
}

export interface Entered {
  readonly ranks: Ranks | undefined;
  readonly trainer: Trainer;
  /** Whether the state came from other workers, which had begun before. */
  readonly hasJoined: boolean;
}

/** Stands for the state of a run in which this worker, or all of them, have moved. */
export const MOVED = "moved";

/** Tries again while generations fail. @throws what ends the run */
export async function enter(options: EnterOptions): Promise<Entered> {
  const { members, asked, settings, isApart } = options;
  // The others do not wait for a newcomer until it is ready.
  const preparing = members && prepare({ ...settings, isApart });
  const prepared = preparing && (await unlessAborted(preparing, asked));
  try {
    for (let lost: unknown; ; ) {
      const given =
        options.ranks ?? (members && (await unlessAborted(members.next(0, lost), asked)));
      try {
        return await enterGroup(options, given, prepared);
      } catch (error) {
        if (members === undefined) throw error;
        const isShort = members.hasBegun() && isTooFew(error);
        if (isShort) given?.group.transport.abort(error);
        else if (!isLoss(error, given)) throw error;
        await given?.group.close();
        lost = error;
      }
    }
  } finally {
    prepared?.close();
  }
}

async function enterGroup(
  { members, settings, begin, facts, agreed, asked }: EnterOptions,
  given: Ranks | undefined,
  prepared: Prepared | undefined,
): Promise<Entered> {
  const ranks = given && (await withRoom(given, settings.offloadFolder));
  const options = { ...settings, ranks };
  const joined = members && (await joinTrainer(options, prepared));
  // A run that has lost its state goes on with those that are left.
  const { parallel } = settings;
  const size = ranks?.group.size ?? 1;
  const axes = members?.hasBegun() === true ? axesFor(parallel, size) : parallel;
  const trainer = joined ?? (await createTrainer({ ...options, parallel: axes }, prepared));
  try {
    asked.throwIfAborted();
    const state = joined === undefined ? await begin(trainer, ranks?.group) : MOVED;
    const meet = members?.hasBegun() === true ? agreeOrLose : agree;
    if (ranks !== undefined) await meet(ranks.group, facts(trainer, state));
    await agreed(trainer, ranks?.group, joined !== undefined);
    return { ranks, trainer, hasJoined: joined !== undefined };
  } catch (error) {
    trainer.close();
    throw error;
  }
}

/** How the step is shared is chosen from what all ranks have. */
export async function withRoom(ranks: Ranks, folder: string): Promise<Ranks> {
  return { ...ranks, room: ranks.room ?? (await meetRoom(ranks.group, folder)) };
}
