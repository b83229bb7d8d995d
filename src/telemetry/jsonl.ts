/**
 * Writes a run's metrics as JSON lines: one object for each step or evaluation, appended as events
 * arrive.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import type { EventSink, RunEvent } from "./events.ts";

export interface JsonlSink {
  readonly sink: EventSink;
  close(): void;
}

export interface JsonlOptions {
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /**
   * Receives a sentence when lines can no longer be written, and another when they can be written
   * again.
   */
  readonly onTrouble?: (text: string) => void;
}

/**
 * Writes `path` from the `started` event on. A new run starts the file anew; a resumed run keeps
 * the lines up to the step after which it continues, so that no step is recorded twice.
 * The sink throws IO_FAILED if `path` is not a regular file with a single name, or cannot be made.
 * Later failures, such as a full disk, lose lines but do not stop the run: the file always ends
 * with a whole line.
 */
export function jsonlSink(
  path: string,
  { now, onTrouble = () => undefined }: JsonlOptions,
): JsonlSink {
  let file: number | undefined;
  let length = 0;
  let lost = 0;
  let lastStep = 0;
  const append = (text: string): void => {
    if (file === undefined) return;
    const bytes = Buffer.from(text, "utf8");
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(file, bytes, done, bytes.length - done, length + done);
      }
    } catch (error) {
      cutOff(file, length);
      const { message } = fileError(error, "write", path) as Error;
      if (lost++ === 0) onTrouble(`${message}\n  The run continues without these lines.`);
      return;
    }
    length += bytes.length;
    if (lost > 0) onTrouble(`"${path}" is written again; ${lost} lines are missing.`);
    lost = 0;
  };
  return {
    sink: (event) => {
      if (event.type === "started" && file === undefined) {
        ({ file, length } = openLines(path, event.firstStep));
      }
      // This worker goes on with a file that another one has written.
      if (event.type === "generation" && file === undefined) {
        ({ file, length, lastStep } = openLines(path, event.step));
      }
      if (event.type === "step") {
        if (event.step <= lastStep) return;
        lastStep = event.step;
      }
      const line = lineOf(event);
      if (line !== undefined) append(`${JSON.stringify({ time: now(), ...line })}\n`);
    },
    close: () => {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

interface OpenLines {
  readonly file: number;
  /** In bytes. */
  readonly length: number;
  /** The last step that has a line of its own. */
  readonly lastStep: number;
}

/** Opens the file, cut after the lines of step `step`. */
function openLines(path: string, step: number): OpenLines {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  let file: number | undefined;
  try {
    file = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o666);
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.nlink > 1) {
      const what = stat.isFile() ? "it has a second name" : "it is not a regular file";
      throw new LockstepError("IO_FAILED", `Cannot write "${path}": ${what}.`, {
        hint: "A run writes only to files in its own folder. Move it away.",
        fields: { path },
      });
    }
    const bytes = readFileSync(file);
    const length = step === 0 ? 0 : lengthUpTo(bytes, step);
    ftruncateSync(file, length);
    return { file, length, lastStep: lastStepIn(bytes.toString("utf8", 0, length)) };
  } catch (error) {
    if (file !== undefined) closeSync(file);
    throw fileError(error, "write", path);
  }
}

/** The length in bytes of the whole lines about steps up to `step`. */
function lengthUpTo(bytes: Buffer, step: number): number {
  let length = 0;
  for (;;) {
    const end = bytes.indexOf(10, length);
    if (end === -1 || stepOf(bytes.toString("utf8", length, end)) > step) return length;
    length = end + 1;
  }
}

/** The last step that a file of metrics tells of; 0 if there is none. */
export function lastStepOf(path: string): number {
  try {
    if (!lstatSync(path).isFile()) return 0; // a pipe would never end
    const lines = readFileSync(path, "utf8").split("\n");
    const steps = lines.filter((line) => line.includes('"type":"step"')).map(stepOf);
    return steps.findLast(Number.isFinite) ?? 0;
  } catch {
    return 0;
  }
}

function lastStepIn(text: string): number {
  const lines = text.split("\n").filter((line) => line.includes('"type":"step"'));
  return lines.length === 0 ? 0 : stepOf(lines.at(-1) as string);
}

/**
 * The step of a line. A line that cannot be parsed counts as a later step, because what follows it
 * cannot be trusted either.
 */
function stepOf(line: string): number {
  try {
    const { step = 0 } = JSON.parse(line) as { step?: number };
    return step;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function lineOf(event: RunEvent): object | undefined {
  switch (event.type) {
    case "step": {
      const { secondsLeft: _, steps: __, ...kept } = event;
      return kept;
    }
    case "started":
    case "shared":
    case "evaluated":
    case "checkpoint":
    case "stopped":
    case "failed":
    case "notice":
    case "changed":
    case "membership":
    case "generation":
    case "repeated":
    case "healed":
      return event;
    case "stopping":
    case "complete":
    case "finishing":
    case "finished":
      return undefined;
  }
}

/**
 * Cuts the file if possible. An error here is ignored: the failure that made the cut necessary is
 * reported.
 */
function cutOff(file: number, length: number): void {
  try {
    ftruncateSync(file, length);
  } catch {
    // the file has no length, such as a device
  }
}
