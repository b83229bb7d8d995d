/** What is special about a run, in sentences for people. */
import { applyStrategies, textOfBytes, wholeWork } from "../parallel/index.ts";
import { onDisk } from "../program/index.ts";
import { exportNotes } from "./export.ts";
import type { Session } from "./session.ts";
import { wholeWorkTold } from "./whole-work.ts";

/** Returns what the user should know before the first step, and finds in the report. */
export function notesOf(session: Session): string[] {
  const { model, exporting } = session;
  return [
    ...model.notes,
    ...(exporting === undefined ? [] : exportNotes(exporting)),
    ...wholeNote(session),
    ...wholeWorkNote(session),
    ...diskNote(session),
    ...idleNote(session),
    ...validationNote(session),
  ];
}

/** More names than this are not listed. */
const MOST_NAMES = 6;

/** Which matrices every worker holds, although workers are to divide them. */
function wholeNote({ model, trainer }: Session): string[] {
  const { divided } = trainer.plan;
  const { axes } = trainer.planned.parallel.mesh;
  if (divided === undefined || !axes.some(({ name }) => name === "tensor")) return [];
  const matrices = model.parameters.filter(({ type: { shape } }) => shape.length > 1);
  const whole = matrices.filter(({ name }) => !divided.tensors.has(name));
  if (whole.length === 0) return [];
  const names = whole.map(({ name, type: { shape } }) => `${name} (${shape.join(" × ")})`);
  const others = whole.length - MOST_NAMES;
  const more = others > 0 ? ` and ${others} more` : "";
  return [
    `Every worker holds all of ${names.slice(0, MOST_NAMES).join(", ")}${more}: no dim of ${whole.length === 1 ? "it" : "these"} divides evenly among the workers, or the optimizer updates whole matrices. The other ${matrices.length - whole.length} of ${matrices.length} matrices are divided.`,
  ];
}

/** What every worker computes, although workers are to divide it. */
function wholeWorkNote({ trainer }: Session): string[] {
  const { step, parallel } = trainer.planned;
  const { mesh, strategies } = parallel;
  if (trainer.plan.divided === undefined) return [];
  return wholeWorkTold(wholeWork(step, applyStrategies(strategies, step, mesh), mesh));
}

/** What lies on disk and not in memory. */
function diskNote({ trainer, options }: Session): string[] {
  const kinds = [...onDisk(trainer.plan)].map(([kind, bytes]) => `${kind} ${textOfBytes(bytes)}`);
  if (kinds.length === 0) return [];
  const whose = options.ranks === undefined ? "" : " of each worker";
  return [
    `Offload: ${kinds.join(" and ")}${whose} lie on the disk of "${options.folder.path}" and not in memory, in files without names that go with the run. Steps are slower for it.`,
  ];
}

/** Warns that threads are idle, because a micro-batch of several uses one thread. */
function idleNote({ run: { microBatches }, options: { engine, ranks } }: Session): string[] {
  const { threads } = engine;
  if (ranks !== undefined || microBatches === 1 || threads <= microBatches) return [];
  return [
    `Only ${microBatches} of ${threads} threads compute gradients, one for each of the ${microBatches} micro-batches. Set microBatches in the run to use more.`,
  ];
}

function validationNote({ trainer, validation }: Session): string[] {
  const why = trainer.plan.evaluation?.measures[0]?.meanOfBatches;
  if (validation === undefined || why === undefined) return [];
  return [`The validation loss is a mean over batches, for ${why}.`];
}
