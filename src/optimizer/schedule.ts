/** Learning rate schedules as data, and one function from step to factor. Steps count from 0. */
import { LockstepError } from "../errors.ts";
import { checkOptions, choice, finite } from "../options.ts";

interface Warmup {
  /**
   * The number of steps at the start in which the factor rises linearly from 1/warmup to 1.
   * Default: 0.
   */
  readonly warmup?: number;
}

interface Ending {
  /**
   * The number of steps, warm-up included; afterwards the last factor holds. Default: the steps of
   * the run.
   */
  readonly steps?: number;
  /** The factor at the end. Default: 0. */
  readonly final?: number;
}

export type Schedule =
  | ({ readonly kind: "constant" } & Warmup)
  | ({ readonly kind: "linear" } & Warmup & Ending)
  | ({ readonly kind: "cosine" } & Warmup & Ending)
  | ({ readonly kind: "wsd"; readonly decay: number; readonly shape?: DecayShape } & Warmup &
      Ending);

export type DecayShape = "linear" | "sqrt";

export const constant = (options: Warmup = {}): Schedule =>
  checkedSchedule({ kind: "constant", ...options });

/** Decreases linearly after warm-up. */
export const linear = (options: Warmup & Ending = {}): Schedule =>
  checkedSchedule({ kind: "linear", ...options });

/**
 * Decreases along half a cosine after warm-up: Loshchilov & Hutter, "SGDR", 2017
 * (arXiv:1608.03983), without restarts.
 */
export const cosine = (options: Warmup & Ending = {}): Schedule =>
  checkedSchedule({ kind: "cosine", ...options });

/**
 * Warm-up, stable, decay: Hu et al., "MiniCPM", 2024 (arXiv:2404.06395). `decay` is the number of
 * steps of the last part; `sqrt` decreases as 1 - √progress (Hägele et al., 2024,
 * arXiv:2405.18392).
 */
export const wsd = (
  options: { readonly decay: number; readonly shape?: DecayShape } & Warmup & Ending,
): Schedule => checkedSchedule({ kind: "wsd", ...options });

const WARMUP = { warmup: finite.optional() };
const ENDING = { ...WARMUP, steps: finite.optional(), final: finite.optional() };
const DECAY = { decay: finite, shape: choice("linear", "sqrt").optional() };
const KINDS = { constant: WARMUP, linear: ENDING, cosine: ENDING, wsd: { ...ENDING, ...DECAY } };

/** A schedule from a file, checked like one of a run file. Throws INVALID_OPTION. */
export function scheduleOf(schedule: Schedule): Schedule {
  if (Object.hasOwn(KINDS, schedule.kind)) return checkedSchedule(schedule);
  throw new LockstepError("INVALID_OPTION", `There is no schedule of the kind "${schedule.kind}".`);
}

function checkedSchedule(schedule: Schedule): Schedule {
  const { kind, ...options } = schedule;
  checkOptions<object>(`The ${kind} schedule`, options, KINDS[kind]);
  for (const [name, value] of Object.entries(options)) {
    if (typeof value !== "number" || (value >= 0 && (name !== "final" || value <= 1))) continue;
    const wanted = name === "final" ? "between 0 and 1" : "0 or more steps";
    throw new LockstepError(
      "INVALID_OPTION",
      `The ${kind} schedule: ${name} must be ${wanted}, got ${value}.`,
      { fields: { schedule: kind, option: name, value } },
    );
  }
  return schedule;
}

/**
 * The factor by which the base learning rate is multiplied at `step` (from 0).
 * @param runSteps the number of steps of the run, for a schedule that does not state its own
 */
export function scheduleFactor(schedule: Schedule, step: number, runSteps?: number): number {
  const warmup = schedule.warmup ?? 0;
  if (step < warmup) return (step + 1) / warmup;
  if (schedule.kind === "constant") return 1;
  const steps = schedule.steps ?? runSteps;
  if (steps === undefined) {
    throw new LockstepError(
      "INVALID_OPTION",
      `The ${schedule.kind} schedule must know how many steps there are.`,
      { hint: `Give the run \`steps\`, or ${schedule.kind}({ steps }).` },
    );
  }
  const start = schedule.kind === "wsd" ? Math.max(warmup, steps - schedule.decay) : warmup;
  const progress = Math.min(1, Math.max(0, (step - start) / Math.max(1, steps - start)));
  const final = schedule.final ?? 0;
  return final + (1 - final) * remaining(schedule, progress);
}

/** Decreases from 1 at progress 0 to 0 at progress 1. */
function remaining(schedule: Exclude<Schedule, { kind: "constant" }>, progress: number): number {
  switch (schedule.kind) {
    case "linear":
      return 1 - progress;
    case "cosine":
      return (1 + Math.cos(Math.PI * progress)) / 2;
    case "wsd":
      return schedule.shape === "sqrt" ? 1 - Math.sqrt(progress) : 1 - progress;
  }
}
