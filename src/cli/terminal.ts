/** What a command shows of a run on the terminal that it was typed on. */
import { type EventSink, terminalSink } from "../telemetry/index.ts";

/** @param resumeCommand what is shown after a stop */
export function terminal(resumeCommand: string): EventSink {
  const now = () => performance.now();
  return terminalSink({ stream: process.stdout, now, env: process.env, resumeCommand });
}
