/** Describes the events of a run in words, for a person at a terminal. */
import type pc from "picocolors";
import type {
  BitsPerByte,
  Evaluated,
  NetworkFacts,
  Report,
  RunEvent,
  RunFinishing,
  RunStarted,
  StateHealed,
  StepDone,
} from "./events.ts";

export type Colors = ReturnType<typeof pc.createColors>;

/** The lines for every event that is not a step. `resume` is the command that resumes the run. */
export function describe(
  event: Exclude<RunEvent, StepDone | RunFinishing>,
  colors: Colors,
  resume: string,
): string[] {
  switch (event.type) {
    case "started":
      return [
        `${colors.bold(event.name)}: ${event.model}, ${count(event.parameters)} parameters`,
        ...(event.trains === undefined ? [] : [event.trains]),
        `data: ${event.data}`,
        `engine: ${event.engine}, ${workforce(event)}`,
        ...(event.sharing === undefined ? [] : [`sharing: ${event.sharing}`]),
        ...(event.network === undefined ? [] : [networkLine(event.network)]),
        `${plural(event.steps, "step")} of ${plural(event.batch, "sample")}; ready in ${event.seconds.toFixed(1)} s` +
          (event.firstStep > 0 ? `; continuing after step ${event.firstStep}` : ""),
        ...event.notes.map((note) => `note: ${note}`),
      ];
    case "changed":
      return event.changes.map(
        ({ name, before, now }) =>
          `from step ${event.step + 1} on, ${name} is ${now} instead of ${before}`,
      );
    case "notice":
    case "membership":
      return [event.text];
    case "generation":
    case "repeated":
      return []; // the membership that leads to it is told
    case "healed":
      return [healing(event)];
    case "shared":
      return [`step ${event.step}: ${event.reason}`];
    case "evaluated":
      return [`step ${event.step}: validation loss ${event.loss.toFixed(4)}${measures(event)}`];
    case "checkpoint":
      return [];
    case "stopping":
      return ["Stopping after this step. Ctrl-C again ends at once, without saving."];
    case "stopped":
      if (event.files.length === 0)
        return ["Stopped before a step was saved: there is nothing to continue."];
      return [
        `Stopped after step ${event.step} of ${event.steps}. Saved in ${colors.bold(event.out)}.`,
        "Continue with:",
        `  ${colors.bold(resume)}`,
      ];
    case "failed":
      return event.files.length === 0
        ? []
        : [`The files as of step ${event.step} are in ${event.out}:`, ...wrap(event.files)];
    case "complete":
      return [
        `Nothing to do: ${event.out} has ${plural(event.step, "step")} done, and ${event.steps} were asked for.`,
        "Ask for more with --steps, or start again with --anew.",
      ];
    case "finished":
      return finished(event.report, event.files, event.out, colors);
  }
}

function healing({ step, rank, from, since, isExact }: StateHealed): string {
  const found = `After step ${step}, weights of worker ${rank} were not what they should be, and were replaced by those of worker ${from}.`;
  if (isExact) return `${found} No committed step was computed with them.`;
  return `${found} Steps ${since + 1} to ${step} may have been computed with them; with checkReplicas: 1 that cannot happen.`;
}

/** Formats measures as `, accuracy 0.9312`. */
function measures({ measures }: Evaluated): string {
  return Object.entries(measures ?? {})
    .map(([name, value]) => `, ${name} ${value.toFixed(4)}`)
    .join("");
}

function finished(report: Report, files: readonly string[], out: string, colors: Colors): string[] {
  const { steps, samples, seconds, trainLoss, validationLoss } = report;
  const held = validationLoss === null ? "" : `, validation loss ${validationLoss.toFixed(4)}`;
  const lines = [
    `${plural(steps, "step")}, ${plural(samples, "sample")} in ${duration(seconds)}, ${speed(report)}: ` +
      `training loss ${trainLoss.toFixed(4)}${held}`,
  ];
  const { samplesRepeated } = report.history;
  if (samplesRepeated > 0) {
    lines.push(
      `${plural(samplesRepeated, "sample")} of committed steps were computed again, because the run fell back to a checkpoint.`,
    );
  }
  if (report.bitsPerByte !== null) lines.push("", ...compare(report.bitsPerByte, colors));
  if (report.sample !== null) {
    const sample = report.sample.trimEnd().split("\n");
    lines.push("", "A sample:", ...sample.map((text) => colors.dim(`  ${text}`)));
  }
  lines.push("", `Written to ${colors.bold(out)}:`, ...wrap(files));
  return lines;
}

/** Wraps words into lines that fit a narrow terminal. */
function wrap(words: readonly string[]): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > 76) lines.push(`  ${word}`);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** Bars that compare bits per byte on held-out text; smaller is better. */
function compare({ model, bigram, gzip }: BitsPerByte, colors: Colors): string[] {
  const rows: [string, number][] = [
    ["this model", model],
    ["bigram model", bigram],
    ["gzip -9", gzip],
  ];
  const longest = Math.max(model, bigram, gzip);
  return [
    "Bits per byte of held-out text (smaller is better):",
    ...rows.map(([name, value], index) => {
      const bar = "█".repeat(Math.round((30 * value) / longest));
      const text = `  ${name.padEnd(13)}${value.toFixed(3)}  ${bar}`;
      return index === 0 ? colors.green(text) : text;
    }),
  ];
}

export function describeStep(event: StepDone): string {
  return [
    `step ${event.step}/${event.steps}`,
    `loss ${event.loss.toFixed(4)}`,
    speed(event),
    `${duration(event.secondsLeft)} left`,
  ].join("  ");
}

interface Speed {
  readonly samplesPerSecond: number;
  readonly tokensPerSecond?: number | null | undefined;
}

function speed({ tokensPerSecond, samplesPerSecond }: Speed): string {
  return typeof tokensPerSecond === "number"
    ? `${count(tokensPerSecond)} tokens/s`
    : `${count(samplesPerSecond)} samples/s`;
}

/** For example `2 machines: 34 µs and 1.2 GB/s between them; gradients travel in 6 buckets`. */
function networkLine({ machines, messageUs, bytesPerSecond, buckets }: NetworkFacts): string {
  const rate = (bytesPerSecond / 1e9).toPrecision(2);
  const pieces = buckets === 1 ? "in one piece" : `in ${buckets} buckets`;
  const link = `${messageUs.toFixed(0)} µs and ${rate} GB/s between them`;
  return `${plural(machines, "machine")}: ${link}; gradients travel ${pieces}`;
}

/** If there are more shares than this, they are not listed one by one. */
const MOST_SHARES = 8;

/** For example `2 workers of 1 thread: micro-batches 2 + 2 of 4`, or `2 threads`. */
function workforce({ workers, threads, shares }: RunStarted): string {
  const each = plural(threads, "thread");
  if (workers === 1) return each;
  const all = shares.reduce((sum, share) => sum + share, 0);
  const [least, most] = [Math.min(...shares), Math.max(...shares)];
  const range = least === most ? `${most} each` : `${least} to ${most} each`;
  const parts = shares.length > MOST_SHARES ? range : shares.join(" + ");
  const together = workers / shares.length;
  const by = together > 1 ? `, each by ${together} workers together` : "";
  return `${plural(workers, "worker")} of ${each}: micro-batches ${parts} of ${all}${by}`;
}

function plural(number: number, noun: string): string {
  return `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;
}

function count(value: number): string {
  return value >= 100 || Number.isInteger(value)
    ? Math.round(value).toLocaleString("en-US")
    : value.toPrecision(3);
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
