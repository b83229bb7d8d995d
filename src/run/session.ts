/** Everything that the steps of a run share. It is made before the first step. */

import { type Hold, Ledger } from "../checkpoint/index.ts";
import { type Dataset, type ModelInput, openData } from "../data/index.ts";
import type { Device } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import {
  type CommittedStep,
  type Healed,
  type Ranks,
  sharingOf,
  type Trainer,
} from "../train/index.ts";
import { bytesWritten, checkIdentity, hashOfState, loadCheckpoint } from "./checkpoint.ts";
import { enter } from "./enter.ts";
import { type ExportPlan, planExport, trainedGraph } from "./export.ts";
import { factsHere } from "./facts.ts";
import { fieldRanges } from "./field-ranges.ts";
import { checkHolds, type Fingerprint, fingerprintOf } from "./fingerprint.ts";
import {
  type Beginning,
  checkBeginning,
  checkRoom,
  markFolder,
  nearestFolder,
  prepareFolder,
  type RunFolder,
} from "./folder.ts";
import { samplingGraph } from "./generate.ts";
import type { CheckpointHead, Progress } from "./head.ts";
import { holdPlace } from "./hold.ts";
import { type Change, type Changeable, type Identity, identityOf } from "./identity.ts";
import { type FolderLock, lockForLeader } from "./lock.ts";
import { type Members } from "./members.ts";
import { type Chosen, chooseCheckpoint } from "./resume.ts";
import type { Run } from "./run.ts";
import { type Committing, ledgerOf, shareLedger } from "./samples.ts";
import { Saver } from "./saver.ts";
import { unlessAborted } from "./unless-aborted.ts";
import { Validation } from "./validation.ts";
import { tellWeights, type WeightsPlace } from "./weights-place.ts";

export interface TrainOptions {
  readonly engine: Device;
  readonly folder: RunFolder;
  /** The folder that relative paths and globs of the run's data start from. */
  readonly baseDir: string;
  /** The folders below which the run's data must lie, after following links. Default: anywhere. */
  readonly roots?: readonly string[] | undefined;
  /** The digest that the data must have. Default: any. */
  readonly holds?: Fingerprint | undefined;
  readonly beginning: Beginning;
  /** The options that may change in a resumed run. */
  readonly changes?: readonly Changeable[] | undefined;
  /** Aborting it asks for a clean stop: the current step is finished and saved. */
  readonly signal: AbortSignal;
  readonly onEvent: EventSink;
  /** Returns the milliseconds since the process started. */
  readonly now: () => number;
  /** Returns the bytes of memory that are free. Default: what the system says. */
  readonly freeMemory?: (() => number) | undefined;
  /** The other workers of the run, which all get the same run. Default: none. */
  readonly ranks?: Ranks | undefined;
  /** Workers that come and go, in place of `ranks`. */
  readonly members?: Members | undefined;
  /** Is told in each generation where weights of this worker lie. */
  readonly onWeights?: ((place: WeightsPlace) => void) | undefined;
  /** With `members`: a name that no other run has. */
  readonly group?: string | undefined;
  /** With `members`: whether this worker writes the run's folder in the first generation. */
  readonly leads?: boolean | undefined;
  /**
   * With `members` of several machines: what marks folders that the run has prepared. Another
   * machine may lead from some step on, and then writes its own folder.
   */
  readonly mark?: string | undefined;
}

/**
 * Here, aborting `signal` ends the loop; with several workers, on all of them after the same step.
 */
export interface SessionOptions extends TrainOptions {
  /**
   * Aborted when a stop is asked for on this worker. Before the first step it takes effect at once,
   * because nothing is lost.
   */
  readonly asked: AbortSignal;
  stopNow(): void;
  /**
   * Ends the work that ranks do together. A stop that is asked for afterwards takes effect at once.
   */
  goOnAlone(): void;
}

export interface Session {
  readonly run: Run;
  readonly options: SessionOptions;
  readonly model: Model;
  readonly data: Dataset;
  readonly trainer: Trainer;
  /** The other workers of the present generation; undefined if there are none. */
  ranks: Ranks | undefined;
  readonly validation: Validation | undefined;
  /** The state of the run when this session began. */
  readonly before: Before;
  readonly identity: Identity;
  readonly startedMs: number;
  /**
   * Whether this worker writes the folder and reports events: rank 0 of a generation does.
   */
  leads: boolean;
  /** The lock of the run's folder, if this worker has it. */
  lock: FolderLock | undefined;
  /** The place for checkpoints, if this worker has it. */
  hold: Hold | undefined;
  /** Which samples the steps commit. */
  readonly samples: Committing;
  /** The last committed step that this worker knows of. */
  last: CommittedStep | undefined;
  /** The step after which this worker has validated last. */
  validated: number | undefined;
  /** Whether the run has other workers than at its first step here. */
  hasMoved: boolean;
  hasToldCopies?: boolean;
  /** This worker's part in writing checkpoints. */
  readonly saver: Saver;
  /** What the leader exports at the end. */
  exporting: ExportPlan | undefined;
}

/** The state that a run continues from. */
export interface Before extends Progress {
  /** The options that have changed since then. */
  readonly changes: readonly Change[];
  /** Sentences about newer checkpoints that cannot be used. */
  readonly notices: readonly string[];
  /** Whether the checkpoint is too old to show that it is whole and belongs to this run. */
  readonly isOld: boolean;
}

/**
 * Opens a session. `head` is that of the newest checkpoint, when the run is resumed.
 * @throws the reason of `asked` when it is aborted meanwhile; nothing was written then
 */
export async function openSession(
  run: Run,
  options: SessionOptions,
  given: FolderLock | undefined,
  head?: CheckpointHead,
): Promise<Session> {
  const { engine, baseDir, roots, asked, now } = options;
  const startedMs = now();
  const isFirst = isLeader(options);
  const microBatch = run.batch / run.microBatches;
  const model = run.model.build({ batch: microBatch, mode: "train" });
  // What could fail after the last step fails here.
  let exporting = isFirst ? planExport(run.model, [1, microBatch]) : undefined;
  const inputs = inputsOf(model);
  const data = await unlessAborted(
    openData(run.data, { inputs, baseDir, roots, batch: run.batch }),
    asked,
  );
  let session: Session | undefined;
  let trainer: Trainer | undefined;
  let lock = given;
  let hold: Hold | undefined;
  const hasBegun = () => options.members?.hasBegun() ?? false;
  try {
    asked.throwIfAborted();
    const fingerprint = await fingerprintOf(data, inputs, asked);
    checkHolds(fingerprint, options.holds);
    const identity = identityOf(run, model, fingerprint);
    let from: Chosen | undefined;
    let changes: readonly Change[] = [];
    let fallen: readonly string[] = [];
    let ledger: Ledger | undefined;
    const settings = {
      engine,
      model,
      evaluation: run.model.build({ batch: microBatch, mode: "eval" }),
      evaluationSamples: data.validation && Math.min(data.validation.length, run.evaluate.samples),
      optimizer: run.optimizer,
      schedule: run.schedule,
      steps: run.steps,
      clip: run.clipNorm,
      microBatches: run.microBatches,
      ...sharingOf(run),
      checkReplicas: run.checkReplicas,
      onHealed: (healed: Healed) => {
        if (session?.leads === true) options.onEvent({ type: "healed", ...healed });
      },
      seed: run.seed,
      offloadFolder: nearestFolder(options.folder.path),
    };
    // Slow work is done by now, so that the other workers do not wait for a newcomer.
    const { ranks, hasJoined, ...entered } = await enter({
      ranks: options.ranks,
      members: options.members,
      asked,
      settings,
      isApart: options.mark !== undefined,
      begin: async (made, group) => {
        if (head === undefined && !hasBegun()) return hashOfState(made);
        try {
          from = await chooseCheckpoint(options.folder, group);
        } catch (error) {
          // All workers that held the state are lost, and no checkpoint is whole.
          const isNone = error instanceof LockstepError && NO_CHECKPOINT.test(error.code);
          if (head !== undefined || !isNone) throw error;
          fallen = [`${error.message.split("\n")[0]} The run begins again.`];
          return hashOfState(made);
        }
        changes = checkIdentity(from.head, identity, options.changes);
        return loadCheckpoint(made, from.head);
      },
      agreed: async (made, group, isNew) => {
        const goesOn = from !== undefined || hasBegun();
        const of = { run, folder: options.folder, head: from?.head, changes, goesOn };
        ledger = await shareLedger(group, made.steps, isNew ? undefined : ledgerOf(of));
      },
      facts: (made, state) => factsHere({ run, engine, trainer: made, identity, state }),
    });
    trainer = entered.trainer;
    const used = from?.head ?? head;
    const { step, seconds, trainLoss, isOld } = used ?? BEGINNING;
    const leads = ranks === undefined || ranks.group.rank === 0;
    if (leads && !hasJoined) {
      if (lock === undefined) {
        lock = await lockForLeader(options.folder, { signal: asked, hasOwner: hasBegun() });
        if (!hasBegun()) await checkBeginning(options.folder, options.beginning);
        exporting ??= planExport(run.model, [1, microBatch]);
      }
      hold = await holdPlace(options);
      // A text sample that this model cannot generate is refused now.
      const isText = data.text !== undefined && run.sample !== undefined;
      if (isText) samplingGraph(await trainedGraph(run, trainer, 1));
      const beginning = hasBegun() ? "resume" : options.beginning;
      await prepareFolder(options.folder, beginning, used?.step);
      if (options.mark !== undefined) await markFolder(options.folder, options.mark);
      const { checkpoints } = options.folder;
      await checkRoom(options.folder, bytesWritten(trainer, run, beginning, checkpoints));
    }
    const { notices = fallen } = from ?? {};
    const before = { step, seconds, trainLoss, changes, isOld, notices };
    const held = data.validation;
    const validation = held && new Validation(held, trainer);
    session = {
      run,
      options,
      model,
      data,
      trainer,
      ranks,
      validation,
      samples: { ledger: ledger ?? new Ledger(), shares: undefined, entry: undefined },
      before,
      identity,
      startedMs,
      leads,
      lock,
      hold,
      last: undefined,
      validated: undefined,
      hasMoved: hasJoined,
      exporting,
      saver: new Saver(isSaved(before, used) ? step : undefined),
    };
    tellWeights(trainer, options.onWeights);
    return session;
  } catch (error) {
    trainer?.close();
    await hold?.release();
    if (lock !== given) lock?.release();
    await data.close();
    throw error;
  }
}

/** Whether the checkpoint that the run continues from says all that a new one would. */
function isSaved({ changes, isOld }: Before, head?: CheckpointHead): boolean {
  return head !== undefined && changes.length === 0 && !isOld && !head.diverged;
}

/** What data must give for a step of the model. */
export function inputsOf(model: Model): ModelInput[] {
  const ranges = fieldRanges(model);
  return model.batch.map((name) => ({
    name,
    type: typeOf(model.graph, name),
    ranges: ranges.get(name),
  }));
}

/** The codes of an error that says that no checkpoint is whole. */
const NO_CHECKPOINT = /^(?:CHECKPOINT|FILE_CORRUPT)$/;
const BEGINNING = { step: 0, seconds: 0, trainLoss: Number.NaN, isOld: false };

/** Whether this is rank 0 of several workers, or the only one, when the run begins. */
export function isLeader({ ranks, members, leads }: TrainOptions): boolean {
  if (members !== undefined) return leads === true;
  return ranks === undefined || ranks.group.rank === 0;
}

export async function closeSession(session: Session): Promise<void> {
  const { trainer, data, ranks, options, saver } = session;
  await saver.idle(ranks?.group.transport.signal);
  trainer.close();
  await session.hold?.release();
  if (options.members !== undefined) await ranks?.group.close();
  await data.close();
}

/** Returns the seconds of training so far, over all parts of a resumed run. */
export function secondsOf({ options, startedMs, before }: Session): number {
  return before.seconds + (options.now() - startedMs) / 1000;
}
