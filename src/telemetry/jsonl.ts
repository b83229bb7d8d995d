/** Keeps a run's figures as JSON lines: one object a step or evaluation, appended as they come. */
import { closeSync, existsSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { fileError } from "../files/index.ts";
import type { EventSink, RunEvent } from "./events.ts";

export interface JsonlSink {
  readonly sink: EventSink;
  close(): void;
}

/**
 * Writes `path` from the `started` event on. A new run begins the file anew; one that goes on keeps what is there up to
 * the step after which it goes on, so that no step is there twice. `now` gives milliseconds since 1970.
 * The sink throws DISK_FULL or IO_FAILED, and then the file ends with its last whole line.
 */
export function jsonlSink(path: string, now: () => number): JsonlSink {
  let file: number | undefined;
  let length = 0;
  const append = (text: string): void => {
    if (file === undefined) return;
    const bytes = Buffer.from(text, "utf8");
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(file, bytes, done, bytes.length - done, length + done);
      }
    } catch (error) {
      cutOff(file, length);
      throw error;
    }
    length += bytes.length;
  };
  const write = (event: RunEvent): void => {
    if (event.type === "started" && file === undefined) {
      const kept = event.firstStep === 0 ? "" : linesUpTo(path, event.firstStep);
      file = openSync(path, "w");
      append(kept);
    }
    const line = lineOf(event);
    if (line !== undefined) append(`${JSON.stringify({ time: now(), ...line })}\n`);
  };
  return {
    sink: (event) => {
      try {
        write(event);
      } catch (error) {
        throw fileError(error, "write", path);
      }
    },
    close: () => {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

/** The whole lines that tell of steps up to `step`, and of what came before them. */
function linesUpTo(path: string, step: number): string {
  if (!existsSync(path)) return "";
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  const late = lines.findIndex((line) => stepOf(line) > step);
  const kept = late === -1 ? lines : lines.slice(0, late);
  return kept.map((line) => `${line}\n`).join("");
}

/** A line that nobody can read counts as late: what follows it cannot be trusted either. */
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
      return event;
    case "stopping":
    case "complete":
    case "finishing":
    case "finished":
      return undefined;
  }
}

/** Best effort: the failure that made it necessary is the one to tell of. */
function cutOff(file: number, length: number): void {
  try {
    ftruncateSync(file, length);
  } catch {
    // Not a file that has a length.
  }
}
