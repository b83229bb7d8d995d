/** The process of the command `lockstep`: turns every error into a sentence and status 1. */
import { CommanderError } from "commander";
import { LockstepError } from "../errors.ts";
import { endProcess, outliveOutput } from "../launch/index.ts";
import { printable } from "../telemetry/index.ts";
import { commandLine } from "./options.ts";

/** Everything a user can do wrong has a code; what has none is a mistake of the program: ours, or the run file's. */
function explain(thrown: unknown): string {
  const error = folderError(thrown) ?? thrown;
  if (error instanceof LockstepError) return `lockstep: ${error.message} [${error.code}]`;
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return isOurs(stack)
    ? `lockstep failed, and this is a bug in lockstep. Please report it with the lines below.\n${stack}`
    : `lockstep: code of the run file failed. [RUN_FILE]\n${stack}`;
}

/** Where this process stands: asked for by whatever resolves a path, and gone when the folder was deleted or its parents closed. */
function folderError(error: unknown): LockstepError | undefined {
  if (!(error instanceof Error && "syscall" in error && error.syscall === "uv_cwd"))
    return undefined;
  const { code } = error as NodeJS.ErrnoException;
  const [isGone, path] = [code === "ENOENT", process.env["PWD"]];
  const why = isGone ? "it was deleted or moved" : `the system says ${code}`;
  const name = path === undefined ? "" : ` "${path}"`;
  return new LockstepError(
    isGone ? "FILE_NOT_FOUND" : "IO_FAILED",
    `The current folder${name} cannot be found out: ${why}.`,
    { hint: "Go to a folder that exists, and give the command again: cd." },
  );
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
