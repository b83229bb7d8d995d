/**
 * Builds everything that a run will ask of its model, without an engine and before any step: for
 * the steps, validation, the export and the sample. So a job can contain all that the workers will
 * ask for.
 */
import { openData } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { createMesh, evenTopology } from "../mesh/index.ts";
import { buildStep } from "../plan/index.ts";
import { lower } from "../program/index.ts";
import { planExport } from "./export.ts";
import { type Fingerprint, fingerprintOf } from "./fingerprint.ts";
import type { Run } from "./run.ts";
import { inputsOf } from "./session.ts";
import { unlessAborted } from "./unless-aborted.ts";

export interface RehearsalOptions {
  /** The folder that relative paths and globs of the run's data start from. */
  readonly baseDir: string;
  /** The folders below which data must lie. Default: anywhere. */
  readonly roots?: readonly string[] | undefined;
  /** Whether data may be missing on this machine. */
  readonly mayLackData: boolean;
  readonly signal: AbortSignal;
}

export interface Rehearsal {
  /** The digest of the data; undefined if the data is not on this machine. */
  readonly holds: Fingerprint | undefined;
}

/**
 * @throws what planning the run throws, what opening its data throws, and the reason of `signal`
 */
export async function rehearse(run: Run, options: RehearsalOptions): Promise<Rehearsal> {
  const micro = run.batch / run.microBatches;
  const model = run.model.build({ batch: micro, mode: "train" });
  const evaluation = run.model.build({ batch: micro, mode: "eval" });
  // The text sample is generated one at a time, so one of the sizes is 1.
  planExport(run.model, [1, micro]);
  const found = await lookAtData(run, inputsOf(model), options);
  const { optimizer, microBatches, clipNorm } = run;
  lower(buildStep({ model, optimizer, microBatches, clip: clipNorm }), {
    ground: { mesh: createMesh({}), topology: evenTopology(1, 1) },
    rank: 0,
    optimizer,
    evaluation,
    evaluationSamples: found === undefined ? assumedSamples(run) : found.evaluationSamples,
  });
  return { holds: found?.holds };
}

/** Returns the least number of held-out samples to assume when the data cannot be counted. */
function assumedSamples({ data, evaluate }: Run): number | undefined {
  return data.heldOut === 0 ? undefined : evaluate.samples;
}

interface Found {
  readonly holds: Fingerprint;
  readonly evaluationSamples: number | undefined;
}

async function lookAtData(
  run: Run,
  inputs: ReturnType<typeof inputsOf>,
  { baseDir, roots, mayLackData, signal }: RehearsalOptions,
): Promise<Found | undefined> {
  try {
    const opening = openData(run.data, { inputs, baseDir, roots, batch: run.batch });
    const data = await unlessAborted(opening, signal);
    try {
      const holds = await fingerprintOf(data, inputs, signal);
      const held = data.validation?.length;
      return { holds, evaluationSamples: held && Math.min(held, run.evaluate.samples) };
    } finally {
      await data.close();
    }
  } catch (error) {
    const isLacking =
      error instanceof LockstepError && /^(?:FILE_NOT_FOUND|DATA_EMPTY)$/.test(error.code);
    if (isLacking && mayLackData) return undefined;
    throw error;
  }
}
