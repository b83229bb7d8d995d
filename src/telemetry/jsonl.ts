/** Keeps a run's figures as JSON lines: one object a step or evaluation, appended as they come. */
import { closeSync, openSync, writeSync } from "node:fs";
import type { EventSink, RunEvent } from "./events.ts";

export interface JsonlSink {
  readonly sink: EventSink;
  close(): void;
}

/** Appends to `path`; `now` gives milliseconds since 1970. */
export function jsonlSink(path: string, now: () => number): JsonlSink {
  const file = openSync(path, "a");
  return {
    sink: (event) => {
      const kept = line(event);
      if (kept !== undefined) writeSync(file, `${JSON.stringify({ time: now(), ...kept })}\n`);
    },
    close: () => closeSync(file),
  };
}

function line(event: RunEvent): object | undefined {
  switch (event.type) {
    case "step": {
      const { secondsLeft: _, steps: __, ...kept } = event;
      return kept;
    }
    case "started":
    case "evaluated":
    case "checkpoint":
    case "stopped":
      return event;
    case "finished":
      return undefined;
  }
}
