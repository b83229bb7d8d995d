/**
 * The launcher of a run as a process that `lockstep chaos` starts, kills and starts again. It trains
 * like `lockstep train`, tells what happens, and does to its workers what it is told.
 */
import type { Command } from "commander";
import { LockstepError } from "../errors.ts";
import type { LocalProcess, LocalWorkers } from "../launch/index.ts";
import { type Deed, type FromLauncher, LAUNCHER, type ToLauncher } from "./chaos-messages.ts";
import { trainTarget } from "./train.ts";

/** How often it looks whether its workers have changed. */
const LOOK_MS = 50;

/** Adds the command, which no person types. */
export function addLauncher(command: Command): void {
  command.command(LAUNCHER, { hidden: true }).action(launch);
}

/** @throws INVALID_OPTION without the channel to `lockstep chaos` */
async function launch(): Promise<void> {
  if (process.send === undefined) {
    throw new LockstepError("INVALID_OPTION", "Only `lockstep chaos` starts this command.");
  }
  const tell = (message: FromLauncher) =>
    new Promise<void>((resolve) => {
      if (process.connected) process.send?.(message, () => resolve());
      else resolve();
    });
  let workers: LocalWorkers | undefined;
  let told = "";
  let last = Promise.resolve();
  const look = () => {
    if (workers === undefined) return;
    const message = { kind: "workers", list: workers.list(), history: workers.history } as const;
    const text = JSON.stringify(message);
    if (text === told) return;
    told = text;
    last = tell(message);
  };
  const looks = setInterval(look, LOOK_MS).unref();
  // Without `lockstep chaos`, nobody would see how the run goes on.
  const endWithIt = () => process.kill(process.pid, "SIGTERM");
  process.once("disconnect", endWithIt);
  const { file, flags, resumeCommand } = await new Promise<ToLauncher & { kind: "train" }>(
    (resolve) => {
      process.on("message", (message: ToLauncher) => {
        if (message.kind === "train") resolve(message);
        else if (message.kind === "reopen") workers?.reopen(message.place);
        else {
          doTo(workers?.process(message.worker), message.deed);
          void tell({ kind: "done" });
        }
      });
    },
  );
  try {
    await trainTarget(file, flags, resumeCommand, {
      show: (event) => {
        last = tell({ kind: "event", event });
        look();
      },
      onEvent: () => undefined,
      onReady: (_, { path }) => void tell({ kind: "ready", folder: path }),
      onWorkers: (given) => {
        workers = given;
      },
    });
  } finally {
    clearInterval(looks);
    look();
    await last;
    process.off("disconnect", endWithIt);
    if (process.connected) process.disconnect();
  }
}

function doTo(process: LocalProcess | undefined, { name, given }: Deed): void {
  (process?.[name] as ((...words: typeof given) => boolean) | undefined)?.call(process, ...given);
}
