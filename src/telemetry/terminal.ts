/**
 * Shows a run to a person: one line that is written over on a terminal, plain lines now and then elsewhere.
 */
import type { WriteStream } from "node:tty";
import pc from "picocolors";
import type { BitsPerByte, EventSink, Report, RunEvent, StepDone } from "./events.ts";

type Colors = ReturnType<typeof pc.createColors>;

export interface TerminalOptions {
  readonly stream: NodeJS.WritableStream & Partial<Pick<WriteStream, "isTTY" | "columns">>;
  /** Milliseconds since any start; injected, for tests. */
  readonly now: () => number;
}

/** Least time between two plain lines, and between two repaints of a live one. */
const PLAIN_INTERVAL_MS = 5_000;
const LIVE_INTERVAL_MS = 100;

export function terminalSink({ stream, now }: TerminalOptions): EventSink {
  const live = stream.isTTY === true;
  const colors = pc.createColors(live && pc.isColorSupported);
  let last = Number.NEGATIVE_INFINITY;
  let painted = false;
  const line = (text: string): void => {
    if (painted) stream.write("\r\x1b[2K");
    painted = false;
    stream.write(`${text}\n`);
  };
  const progress = (event: StepDone): void => {
    const due = now() - last >= (live ? LIVE_INTERVAL_MS : PLAIN_INTERVAL_MS);
    if (!due && event.step !== event.steps && event.step !== 1) return;
    last = now();
    if (!live) return line(describeStep(event));
    stream.write(`\r\x1b[2K${liveLine(event, stream.columns ?? 80)}`);
    painted = true;
  };
  return (event) => {
    if (event.type === "step") progress(event);
    else for (const text of describe(event, colors)) line(text);
  };
}

function describe(event: Exclude<RunEvent, StepDone>, colors: Colors): string[] {
  switch (event.type) {
    case "started":
      return [
        `${colors.bold(event.name)}: ${event.model}, ${count(event.parameters)} parameters`,
        `data: ${event.data}`,
        `${event.engine}, ${event.threads} thread${event.threads === 1 ? "" : "s"}; ` +
          `${event.steps} steps of ${event.batch} samples; ready in ${event.seconds.toFixed(1)} s` +
          (event.firstStep > 0 ? `; going on after step ${event.firstStep}` : ""),
      ];
    case "evaluated":
      return [`step ${event.step}: validation loss ${event.loss.toFixed(4)}`];
    case "checkpoint":
      return [];
    case "stopped":
      return [
        `${event.reason} after step ${event.step}. Saved in ${event.out}.`,
        `Go on with the same command and --resume.`,
      ];
    case "finished":
      return finished(event.report, event.files, event.out, colors);
  }
}

function finished(report: Report, files: readonly string[], out: string, colors: Colors) {
  const lines = [
    `${report.steps} steps, ${count(report.samples)} samples in ${duration(report.seconds)}; ` +
      `training loss ${report.trainLoss.toFixed(4)}` +
      (report.validationLoss === undefined
        ? ""
        : `, validation loss ${report.validationLoss.toFixed(4)}`),
  ];
  if (report.bitsPerByte !== undefined) lines.push("", ...compare(report.bitsPerByte, colors));
  if (report.sample !== undefined) {
    lines.push(
      "",
      "A sample:",
      ...report.sample.split("\n").map((text) => colors.dim(`  ${text}`)),
    );
  }
  lines.push("", `Written to ${colors.bold(out)}: ${files.join(", ")}`);
  return lines;
}

/** Bits per byte on held-out text, smaller is better, with bars. */
function compare({ model, bigram, gzip }: BitsPerByte, colors: Colors): string[] {
  const rows: [string, number][] = [
    ["this model", model],
    ["bigram model", bigram],
    ["gzip -9", gzip],
  ];
  const longest = Math.max(model, bigram, gzip);
  return [
    "Bits per byte of held-out text (smaller is better):",
    ...rows.map(([name, value]) => {
      const text = `  ${name.padEnd(13)}${value.toFixed(3)}  ${"█".repeat(Math.round((30 * value) / longest))}`;
      return value === model ? colors.green(text) : text;
    }),
  ];
}

function describeStep(event: StepDone): string {
  return [
    `step ${event.step}/${event.steps}`,
    `loss ${event.loss.toFixed(4)}`,
    speed(event),
    `${duration(event.secondsLeft)} left`,
  ].join("  ");
}

function liveLine(event: StepDone, columns: number): string {
  const text = describeStep(event);
  const room = Math.min(30, columns - text.length - 4);
  if (room < 8) return text.slice(0, columns - 1);
  const full = Math.round((room * event.step) / event.steps);
  return `${"█".repeat(full)}${"░".repeat(room - full)}  ${text}`;
}

function speed({ tokensPerSecond, samplesPerSecond }: StepDone): string {
  return tokensPerSecond === undefined
    ? `${count(samplesPerSecond)} samples/s`
    : `${count(tokensPerSecond)} tokens/s`;
}

function count(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3);
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
