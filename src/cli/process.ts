/** The process of the command `lockstep`: turns every error into a sentence and status 1. */
import { CommanderError } from "commander";
import { LockstepError } from "../errors.ts";
import { endProcess, outliveOutput } from "../launch/index.ts";
import { printable } from "../telemetry/index.ts";
import { commandLine } from "./options.ts";

/** Everything a user can do wrong has a code; what has none is a mistake of the program: ours, or the run file's. */
function explain(error: unknown): string {
  if (error instanceof LockstepError) return `lockstep: ${error.message} [${error.code}]`;
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return isOurs(stack)
    ? `lockstep failed, and this is a bug in lockstep. Please report it with the lines below.\n${stack}`
    : `lockstep: code of the run file failed. [RUN_FILE]\n${stack}`;
}

/** Whether the innermost line of a file is in this package or in what it stands on. What has none was thrown by no code of ours. */
function isOurs(stack: string): boolean {
  const frame = stack.split("\n").find((line) => /^\s+at .*[/\\]/.test(line));
  const own = new URL("../", import.meta.url);
  return (
    frame !== undefined &&
    (/node:|node_modules/.test(frame) || frame.includes(own.href) || frame.includes(own.pathname))
  );
}

function fail(error: unknown): void {
  // Help and version end as an error of the command-line library, with status 0.
  if (error instanceof CommanderError && error.exitCode === 0) return;
  process.exitCode = 1;
  if (!(error instanceof CommanderError)) console.error(printable(explain(error)));
  else if (error.code !== "commander.help") {
    const message = error.message.replace(/^error: /, "");
    const text = `lockstep: ${message} [INVALID_OPTION]\n  lockstep --help lists the commands.`;
    console.error(printable(text));
  }
}

process.on("uncaughtException", (error) => {
  fail(error);
  endProcess(1);
});
outliveOutput();

try {
  await commandLine().parseAsync();
} catch (error) {
  fail(error);
}
// After a failure or a stop, what was begun may never end by itself: the opening of data, a run of the engine.
if (process.exitCode !== undefined) endProcess(Number(process.exitCode));
