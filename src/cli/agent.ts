/** `lockstep agent`. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { startAgent } from "../agent/index.ts";
import { LockstepError } from "../errors.ts";
import { checkToken, type PortRange, parseAddress } from "../net/index.ts";
import { printableLine } from "../telemetry/index.ts";
import { stopOnSignals } from "./signals.ts";

export interface AgentFlags {
  readonly listen: string;
  readonly ports?: PortRange;
  readonly token?: string;
  readonly tls?: boolean;
  readonly maxWorkers?: number;
  readonly dataRoot?: readonly string[];
  /** The largest size of a job's files, in MiB. */
  readonly maxJob?: number;
}

export async function agentCommand(flags: AgentFlags): Promise<void> {
  const { listen, ports, token, tls = false, maxWorkers, dataRoot, maxJob } = flags;
  const { host, port } = parseAddress(/^\d+$/.test(listen) ? `127.0.0.1:${listen}` : listen);
  const agent = await startAgent({
    host,
    port,
    ports,
    token: requireToken(token),
    tls,
    folder: process.cwd(),
    ...(maxWorkers === undefined ? {} : { maxWorkers }),
    ...(dataRoot === undefined ? {} : { dataRoots: dataRoot.map((root) => folderAt(root)) }),
    ...(maxJob === undefined ? {} : { maxJobBytes: maxJob * 2 ** 20 }),
    onNews: (text) => console.log(printableLine(text)),
  });
  console.log(`Listening on ${agent.address}${tls ? " with TLS" : ""}.`);
  await new Promise<void>((resolve) => {
    stopOnSignals(resolve);
  });
  await agent.close();
}

/** The absolute path of a folder. Throws FILE_NOT_FOUND. */
function folderAt(root: string): string {
  const path = resolve(root);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return path;
  throw new LockstepError("FILE_NOT_FOUND", `There is no folder "${root}" for --data-root.`);
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
