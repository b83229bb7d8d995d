/** The names that parts of a checkpoint have in every store. */
import { randomBytes } from "node:crypto";

const DRAFT = /^\.step-(\d+)\.([0-9a-f]{12})\.tmp$/;
const STEP = /^step-(0|[1-9]\d{0,15})$/;

/** The name of the checkpoint of a step. */
export function stepName(step: number): string {
  return `step-${step}`;
}

/** Returns undefined for the name of anything but a checkpoint. */
export function stepOf(name: string): number | undefined {
  const [, step] = STEP.exec(name) ?? [];
  return step === undefined ? undefined : Number(step);
}

/** A new name for a checkpoint that is not complete, or not any more. */
export function draftName(step: number): string {
  return `.step-${step}.${randomBytes(6).toString("hex")}.tmp`;
}

/** The step of a draft, and what distinguishes it from others of that step. */
export function draftOf(name: string): { readonly step: number; readonly id: string } | undefined {
  const [, step, id] = DRAFT.exec(name) ?? [];
  return step === undefined || id === undefined ? undefined : { step: Number(step), id };
}

const MARK = /^\.reach-[0-9a-f]{12}(?:\.\d+)?$/;

/** A new name by which workers of other machines find out that they see the same place. */
export function markName(): string {
  return `.reach-${randomBytes(6).toString("hex")}`;
}

/** Whether it is the name of a mark, or of the answer of a rank to one. */
export function isMark(name: string): boolean {
  return MARK.test(name);
}

export function asideName(step: number): string {
  return `aside-step-${step}`;
}

/** How the files of a writer's shard are called in a draft, which says how far it is. */
export const writing = {
  part: (rank: number) => `rank-${rank}.part`,
  done: (rank: number, sha256: string) => `rank-${rank}.${sha256}.done`,
  failed: (rank: number, code: string) => `rank-${rank}.${code}.failed`,
};

export interface EndedWriter {
  readonly rank: number;
  readonly hasFailed: boolean;
  /** The SHA-256 of its shard, or the code of its error. */
  readonly result: string;
}

/** Returns undefined for a writer that has not ended, and for names of other things. */
export function endedWriter(name: string): EndedWriter | undefined {
  const [, rank, result, how] = /^rank-(\d+)\.(\w+)\.(done|failed)$/.exec(name) ?? [];
  if (rank === undefined || result === undefined) return undefined;
  return { rank: Number(rank), hasFailed: how === "failed", result };
}
