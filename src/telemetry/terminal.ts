/**
 * Shows a run to a person: one line that is rewritten in place on a terminal, or a plain line from
 * time to time elsewhere.
 */
import type { WriteStream } from "node:tty";
import pc from "picocolors";
import type { EventSink, RunEvent, StepDone } from "./events.ts";
import { printableEvent } from "./printable.ts";
import { type Colors, describe, describeStep } from "./words.ts";

export interface TerminalOptions {
  readonly stream: NodeJS.WritableStream & Partial<Pick<WriteStream, "isTTY" | "columns">>;
  /** Milliseconds since any fixed moment; injected for tests. */
  readonly now: () => number;
  /** NO_COLOR turns colours off; TERM=dumb turns off the rewritten line too. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** The command that resumes this run after a stop. */
  readonly resumeCommand?: string;
}

/** The least time between two plain lines, and between two repaints of the rewritten line. */
const PLAIN_INTERVAL_MS = 5_000;
const LIVE_INTERVAL_MS = 100;

const ERASE_LINE = "\r\x1b[2K";

export function terminalSink(options: TerminalOptions): EventSink {
  const { stream, now, env = {} } = options;
  const live = stream.isTTY === true && env["TERM"] !== "dumb";
  const colors = pc.createColors(live && !env["NO_COLOR"]);
  const resume = options.resumeCommand ?? "the same command and --resume";
  const width = () => Math.max(0, (stream.columns || 80) - MARGIN);
  let last = Number.NEGATIVE_INFINITY;
  /** The text of the line that is rewritten in place. */
  let painted: string | undefined;
  const line = (text: string): void => {
    stream.write(`${painted === undefined ? "" : ERASE_LINE}${text}\n`);
    painted = undefined;
  };
  const paint = (text: string): void => {
    stream.write(`${ERASE_LINE}${text}`);
    painted = text;
  };
  const progress = (event: StepDone): void => {
    const due = now() - last >= (live ? LIVE_INTERVAL_MS : PLAIN_INTERVAL_MS);
    if (!due && event.step !== event.steps && event.step !== 1) return;
    last = now();
    if (live) paint(liveLine(event, width(), colors));
    else line(describeStep(event));
  };
  return (happened: RunEvent) => {
    const event = printableEvent(happened);
    if (event.type === "step") return progress(event);
    if (event.type === "finishing") {
      if (live)
        paint(colors.dim("Writing the model, and text that it generates …".slice(0, width())));
      return;
    }
    // The last progress stays visible above the error that follows.
    if (event.type === "failed" && painted !== undefined) line(painted);
    // The terminal has printed its `^C` on the line.
    if (event.type === "stopping" && live) painted ??= "";
    const below = painted;
    for (const text of describe(event, colors, resume)) line(text);
    // A line that is printed between two steps does not remove the progress.
    const between = ["evaluated", "shared", "healed", "notice", "membership"].includes(event.type);
    if (between && below !== undefined) paint(below);
  };
}

/** Columns left free for the cursor and for a terminal's `^C`, so that the line does not wrap. */
const MARGIN = 4;

function liveLine(event: StepDone, width: number, colors: Colors): string {
  const text = describeStep(event);
  const room = Math.min(30, width - text.length - 2);
  if (room < 8) return text.slice(0, width);
  const full = Math.floor((room * event.step) / event.steps);
  return `${colors.green("█".repeat(full))}${colors.dim("░".repeat(room - full))}  ${text}`;
}
