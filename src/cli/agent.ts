/** `lockstep agent` and `lockstep join`. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Agent, joinRun, startAgent } from "../agent/index.ts";
import { LockstepError } from "../errors.ts";
import { availableCores } from "../launch/index.ts";
import { checkToken, type PortRange, parseAddress } from "../net/index.ts";
import { printableLine } from "../telemetry/index.ts";
import { stopOnSignals } from "./signals.ts";

interface Flags {
  readonly ports?: PortRange;
  readonly token?: string;
  readonly tls?: boolean;
  readonly dataRoot?: readonly string[];
  /** The largest size of a job's files, in MiB. */
  readonly maxJob?: number;
}

export interface AgentFlags extends Flags {
  readonly listen: string;
  readonly maxWorkers?: number;
}

export interface JoinFlags extends Flags {
  readonly host?: string;
  readonly workers?: number;
  readonly folder?: string;
}

/** How long workers that are asked to leave may take, before they are ended. */
const DRAIN_MS = 30_000;
/**
 * How long a machine that has lost its launcher tries to reach it again, or longer, if its workers
 * go on for longer.
 */
const RETURN_MS = 60_000;
const DIAL_MS = 10_000;
const PAUSE_MS = 1_000;

export async function agentCommand(flags: AgentFlags): Promise<void> {
  const { listen, tls = false, maxWorkers } = flags;
  const agent = await startAgent({
    ...limitsOf(flags, process.cwd()),
    ...addressFor(listen),
    ...(maxWorkers === undefined ? {} : { maxWorkers }),
  });
  console.log(`Listening on ${agent.address}${tls ? " with TLS" : ""}.`);
  await new Promise<void>((resolve) => {
    stopOnSignals(resolve);
  });
  await leave(agent);
}

export async function joinCommand(address: string, flags: JoinFlags): Promise<void> {
  const { host, workers = availableCores(), folder = "." } = flags;
  const stop = stopOnSignals(() => undefined);
  const { signal } = stop;
  const stopped = new Promise<"stopped">((resolve) => {
    signal.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
  const limits = limitsOf(flags, folderAt(folder, "--folder"));
  try {
    const dialing = { ...limits, address, host, workers, deadlineMs: DIAL_MS, signal };
    // An agent whose workers go on without a launcher takes them along to the next.
    let kept: Agent | undefined;
    for (let until = 0; ; ) {
      let agent: Agent;
      try {
        agent = await joinRun(dialing, kept);
      } catch (error) {
        if (signal.aborted) return await (kept && leave(kept));
        if (performance.now() > until) {
          await kept?.close();
          throw error;
        }
        await delay(PAUSE_MS);
        continue;
      }
      console.log(`Joined ${address} with ${workers} ${workers === 1 ? "worker" : "workers"}.`);
      const end = await Promise.race([agent.alone, stopped]);
      if (end === "stopped") return await leave(agent);
      kept = !end && agent.refusal === undefined && agent.left !== undefined ? agent : undefined;
      until = performance.now() + Math.max(RETURN_MS, kept?.left?.awaitMs ?? 0);
      if (kept !== undefined) continue;
      await agent.close();
      if (agent.refusal !== undefined) throw agent.refusal;
      if (end) return;
    }
  } finally {
    stop.end();
  }
}

function limitsOf({ ports, token, tls = false, dataRoot, maxJob }: Flags, folder: string) {
  return {
    ports,
    token: requireToken(token),
    tls,
    folder,
    ...(dataRoot === undefined
      ? {}
      : { dataRoots: dataRoot.map((root) => folderAt(root, "--data-root")) }),
    ...(maxJob === undefined ? {} : { maxJobBytes: maxJob * 2 ** 20 }),
    onNews: (text: string) => console.log(printableLine(text)),
  };
}

/** The address of "[host:]port"; without a host, only this machine reaches it. */
export function addressFor(listen: string): { readonly host: string; readonly port: number } {
  return parseAddress(/^\d+$/.test(listen) ? `127.0.0.1:${listen}` : listen);
}

/** Where a launcher waits for machines that join. Throws INVALID_OPTION for no address of its own. */
export function meetingPlace(listen: string): { readonly host: string; readonly port: number } {
  const place = addressFor(listen);
  if (!["0.0.0.0", "::"].includes(place.host)) return place;
  throw new LockstepError(
    "INVALID_OPTION",
    `--listen needs the address of this machine that other machines reach, and ${place.host} is none.`,
    { hint: "Workers of other machines connect there, as in --listen 10.0.0.1:4200." },
  );
}

/** Lets the workers of this machine hand over what they hold, and then go. */
async function leave(agent: Agent): Promise<void> {
  await Promise.race([agent.drain(), delay(DRAIN_MS, undefined, { ref: false })]);
  await agent.close();
}

/** The absolute path of a folder. Throws FILE_NOT_FOUND. */
function folderAt(root: string, flag: string): string {
  const path = resolve(root);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return path;
  throw new LockstepError("FILE_NOT_FOUND", `There is no folder "${root}" for ${flag}.`);
}

/** Throws UNAUTHORIZED without a token, and INVALID_OPTION for one that is too short. */
export function requireToken(token: string | undefined): string {
  if (token === undefined || token === "") {
    throw new LockstepError("UNAUTHORIZED", "An agent and its launchers need a token.", {
      hint: "Set LOCKSTEP_TOKEN or --token to the same secret everywhere: openssl rand -hex 16 makes one.",
    });
  }
  checkToken(token);
  return token;
}
