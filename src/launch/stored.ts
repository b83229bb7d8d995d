/** What a launcher keeps of a run beyond its own end, checked to the last field when it is read. */
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import type { MembershipState } from "../membership/index.ts";
import { eventSchema, type History, type RunEvent, type RunStarted } from "../telemetry/index.ts";

/** It changes with every change of these fields. */
const VERSION = 5;

export interface StoredRun {
  /** By which the agents know the run's jobs, and the hash of the job. */
  readonly group: string;
  readonly job: string;
  /** Where the launcher has listened for machines that join, as host:port. */
  readonly listensAt: string | undefined;
  readonly state: MembershipState;
  /** How the run began, once it has. */
  readonly begun: RunStarted | undefined;
  readonly history: History;
}

const count = z.int().min(0);
const time = z.number();
const text = z.string();
const ids = z.array(count);
const worker = z.strictObject({
  id: count,
  place: text,
  node: text,
  status: z.enum(["starting", "ready", "member", "leaving", "dismissed", "done", "lost"]),
  since: time,
  heard: time,
  doing: z.enum(["computing", "waiting", "reading", "writing", "blocked", "other"]),
  file: text.optional(),
  movedAt: time,
  stopped: z.boolean(),
  woken: z.boolean(),
  draining: z.boolean(),
  step: count,
  steps: count,
  kills: count,
});
const mishap = z.strictObject({
  worker: count,
  kind: z.enum(["own", "consequence", "crash", "lost"]),
  generation: count.optional(),
  code: text.optional(),
  text,
});
const membership = z.strictObject({
  phase: z.enum(["gathering", "running", "pausing", "breaking", "ended"]),
  since: time,
  time,
  calledAt: time,
  wakeAt: time,
  nextWorker: count,
  generation: z.strictObject({
    number: count,
    members: z.array(z.strictObject({ worker: count, node: text, step: count })),
    step: count,
    holders: ids,
  }),
  workers: z.array(worker),
  lookAt: time,
  records: z.record(text, z.strictObject({ losses: count, restUntil: time, closed: z.boolean() })),
  committed: count,
  furthest: count,
  saved: count,
  progressAt: time,
  hasCommitted: z.boolean(),
  pace: z.strictObject({ mean: time, deviation: time }).optional(),
  done: ids,
  mishaps: z.array(mishap),
  setbacks: count,
  reports: z.array(z.strictObject({ by: count, worker: count })),
  gone: ids,
  least: z.strictObject({ workers: count, why: text }).optional(),
  remindAt: time.optional(),
});
const stored = z.discriminatedUnion("is", [
  z.strictObject({ v: z.literal(VERSION), is: z.literal("over") }),
  z.strictObject({
    v: z.literal(VERSION),
    is: z.literal("running"),
    group: text,
    job: text,
    listensAt: text.optional(),
    state: membership,
    begun: eventSchema.optional(),
    history: z.strictObject({
      workersLost: count,
      workersJoined: count,
      generations: count,
      stepsRepeated: count,
      recoverySeconds: z.array(z.number()),
    }),
  }),
]);

/** What is stored of a run that goes on. */
export function toStore(run: StoredRun): unknown {
  return { v: VERSION, is: "running", ...run };
}

/** What is stored when a run has ended, in whatever way: there is nothing to take over. */
export const OVER = { v: VERSION, is: "over" } as const;

/**
 * @returns undefined if there is no run to take over
 * @throws FILE_CORRUPT
 */
export function openStored(value: unknown, place: string): StoredRun | undefined {
  if (value === undefined) return undefined;
  const checked = stored.safeParse(value);
  if (!checked.success) {
    const [issue] = checked.error.issues;
    const where = issue?.path.join(".").slice(0, 200) ?? "";
    const what = `The state of a run in "${place}" is not understood: ${where} ${issue?.message}.`;
    throw new LockstepError("FILE_CORRUPT", what, {
      hint: "Was it written by another version of lockstep? Use that one, or another --state.",
      fields: { place },
    });
  }
  const { data } = checked;
  if (data.is === "over") return undefined;
  const { group, job, listensAt, state, begun, history } = data;
  return {
    group,
    job,
    listensAt,
    // JSON leaves out what is undefined.
    state: {
      ...state,
      pace: state.pace,
      remindAt: state.remindAt,
      mishaps: state.mishaps.map((one) => ({ ...one, generation: one.generation, code: one.code })),
    },
    begun: isStarted(begun) ? begun : undefined,
    history,
  };
}

function isStarted(event: RunEvent | undefined): event is RunStarted {
  return event?.type === "started";
}
