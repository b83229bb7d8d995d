#!/usr/bin/env node
/** The command `lockstep`: turns every error into a sentence and a status. */
import { CommanderError } from "commander";
import { LockstepError, withCodeOfMemory } from "../errors.ts";
import { compileLater, endProcess, outliveOutput } from "../launch/index.ts";
import { isOwnModule } from "../package.ts";
import { printable } from "../telemetry/index.ts";
import { commandLine } from "./options.ts";

/**
 * The text of an error. Every mistake of a user has a code; an error without a code is a bug, of
 * lockstep or of the run file.
 */
function explain(thrown: unknown): string {
  const error = folderError(thrown) ?? withCodeOfMemory(thrown);
  if (error instanceof LockstepError) return `lockstep: ${error.message} [${error.code}]`;
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return isOurs(stack)
    ? `lockstep failed, and this is a bug in lockstep. Please report it with the lines below.\n${stack}`
    : `lockstep: code of the run file failed. [RUN_FILE]\n${stack}`;
}

/**
 * The error for a working folder that does not exist any more (deleted, or its parents became
 * inaccessible). Everything that resolves a path asks for it.
 */
function folderError(error: unknown): LockstepError | undefined {
  if (!(error instanceof Error && "syscall" in error && error.syscall === "uv_cwd"))
    return undefined;
  const { code } = error as NodeJS.ErrnoException;
  const [isGone, path] = [code === "ENOENT", process.env["PWD"]];
  const why = isGone ? "it was deleted or moved" : `the system reports ${code}`;
  const name = path === undefined ? "" : ` "${path}"`;
  return new LockstepError(
    isGone ? "FILE_NOT_FOUND" : "IO_FAILED",
    `The current folder${name} cannot be determined: ${why}.`,
    { hint: "Change to a folder that exists (cd), and run the command again." },
  );
}

/**
 * Whether the innermost line of the stack that names a file lies in this package or in its
 * dependencies. If no line names one, lockstep's code did not throw the error.
 */
function isOurs(stack: string): boolean {
  const frame = stack.split("\n").find((line) => /^\s+at .*[/\\]/.test(line));
  return frame !== undefined && (/node:|node_modules/.test(frame) || isOwnModule(frame));
}

/** EX_TEMPFAIL of sysexits.h: what starts runs may start this one again. */
const TRY_AGAIN = 75;

/** Whether a run ended for reasons from outside, and not by an error that it would meet again. */
function isForAnotherTry(error: unknown): boolean {
  return error instanceof LockstepError && error.fields["requeue"] === true;
}

function fail(error: unknown): void {
  // The command-line library ends `--help` and `--version` with an error of status 0.
  if (error instanceof CommanderError && error.exitCode === 0) return;
  process.exitCode = isForAnotherTry(error) ? TRY_AGAIN : 1;
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
compileLater();

try {
  await commandLine().parseAsync();
} catch (error) {
  fail(error);
}
// After a failure or a stop, work such as opening data or a call of the engine may never end by
// itself.
if (process.exitCode !== undefined) endProcess(Number(process.exitCode));
