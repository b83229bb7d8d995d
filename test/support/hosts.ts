/**
 * Runs over agents on this machine's loopback: agents in this process or as processes, and launches
 * over them.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Agent, startAgent } from "../../src/agent/index.ts";
import { LockstepError } from "../../src/errors.ts";
import type { JobFiles } from "../../src/job/index.ts";
import { type HostsOptions, launchOnHosts } from "../../src/launch/index.ts";
import { dialLine, type Line } from "../../src/net/index.ts";
import { AGENT_PROTOCOL, PIECE_BYTES } from "../../src/protocol/agent-messages.ts";
import type { RunOverrides } from "../../src/run/index.ts";
import type { Report } from "../../src/telemetry/index.ts";
import { jobOfFile } from "./jobs.ts";
import { WORDS } from "./runs.ts";

export const GPT = `
import { adamw, defineRun, gpt, text } from "lockstep";
export default defineRun({
  model: gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 }),
  data: text("words.txt"),
  optimizer: adamw({ learningRate: 1e-2 }),
  clipNorm: 1, batch: 8, microBatches: 4, steps: 20,
});`;

export const files = { "words.txt": WORDS, "gpt.ts": GPT };
export const token = "a token of tests";
export const LOCAL = { host: "127.0.0.1", port: 0, token } as const;

export type Launch = Partial<Omit<HostsOptions, "overrides" | "hosts" | "root">> &
  Pick<HostsOptions, "hosts" | "root"> & {
    /** The run file, below the root, as is its data. */
    readonly file?: string;
    readonly overrides?: RunOverrides;
  };

/** Makes the job of a run file, and runs it. */
export async function launch({ file = "gpt.ts", overrides = {}, ...options }: Launch) {
  const { root } = options;
  const job = options.job ?? (await jobOfFile({ file: join(root, file), overrides, root }));
  return launchOnHosts({
    token,
    tls: false,
    name: file,
    job,
    out: "out",
    overrides: {},
    beginning: "anew",
    workers: 1,
    threads: 1,
    onEvent: () => undefined,
    signal: new AbortController().signal,
    ...options,
  });
}

/** Starts agents with their folders, and closes all of them at the end. */
export async function withAgents(
  folders: readonly string[],
  body: (hosts: readonly string[]) => Promise<void>,
): Promise<void> {
  const agents: Agent[] = [];
  try {
    for (const folder of folders) agents.push(await startAgent({ ...LOCAL, folder }));
    await body(agents.map(({ address }) => address));
  } finally {
    await Promise.all(agents.map((agent) => agent.close()));
  }
}

export function reportIn(folder: string, out = "out"): Report {
  return JSON.parse(readFileSync(join(folder, out, "report.json"), "utf8")) as Report;
}

/**
 * Rejects unless the promise rejects with a LockstepError of this code whose text has all of these
 * words.
 */
export function rejectsWith(running: Promise<unknown>, code: string, ...words: readonly string[]) {
  return assert.rejects(running, (error) => {
    assert.ok(error instanceof LockstepError, String(error));
    assert.equal(error.code, code, error.message);
    for (const word of words) assert.ok(error.message.includes(word), error.message);
    return true;
  });
}

const MAIN = fileURLToPath(new URL("../../../dist/main.js", import.meta.url));

export interface AgentProcess {
  readonly child: ChildProcess;
  readonly host: string;
  /** Ends the process, and waits for that. */
  end(): Promise<void>;
}

export interface AgentProcessOptions {
  /** The words after `agent`. */
  readonly words?: readonly string[];
  /** The words before the command: another network. */
  readonly prefix?: readonly string[];
  /** The command of another installation. */
  readonly main?: string;
}

/** Starts `lockstep agent` as a process of its own. Resolves when it listens. */
export async function agentProcess(
  folder: string,
  { words = ["--listen", "0"], prefix = [], main = MAIN }: AgentProcessOptions = {},
): Promise<AgentProcess> {
  const [program = "", ...rest] = [...prefix, process.execPath, main, "agent", ...words];
  const child = spawn(program, rest, {
    cwd: folder,
    env: { ...process.env, LOCKSTEP_TOKEN: token },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
  });
  const end = async () => {
    child.kill("SIGTERM");
    child.kill("SIGCONT"); // a test may have stopped it
    await ended;
  };
  const host = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (piece: Buffer) => {
      text += piece.toString();
      const address = /^Listening on (\S+?)(?: with TLS)?\.$/m.exec(text)?.[1];
      if (address !== undefined) resolve(address);
    });
    void ended.then(() => reject(new Error(`the agent ended: ${text}`)));
  });
  return { child, host, end };
}

/** Starts `lockstep join` as a process. `ended` resolves with its status. */
export function joinProcess(address: string, folder: string, words: readonly string[] = []) {
  const child = spawn(process.execPath, [MAIN, "join", address, ...words], {
    cwd: folder,
    env: { ...process.env, LOCKSTEP_TOKEN: token },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const ended = new Promise<number | null>((resolve) => {
    child.once("close", resolve);
  });
  return { child, ended };
}

/** Starts agents as processes, and ends all of them at the end. */
export async function withProcesses(
  starts: readonly Promise<AgentProcess>[],
  body: (hosts: readonly string[], agents: readonly AgentProcess[]) => Promise<void>,
): Promise<void> {
  const agents = await Promise.all(starts);
  try {
    await body(
      agents.map(({ host }) => host),
      agents,
    );
  } finally {
    await Promise.all(agents.map((agent) => agent.end()));
  }
}

/** Returns a launcher's first message about a job, with some fields replaced. */
export function jobMessage(
  job: JobFiles,
  fields: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  const sizeOf = (pieces: readonly Uint8Array[]) => Buffer.concat(pieces).byteLength;
  return {
    v: AGENT_PROTOCOL,
    kind: "job",
    name: "gpt",
    files: [...job].map(([name, pieces]) => ({ name, bytes: sizeOf(pieces) })),
    out: "out",
    beginning: "anew",
    overrides: { steps: 1 },
    group: "g",
    own: 1,
    ...fields,
  };
}

export function dial(address: string): Promise<Line> {
  const { signal } = new AbortController();
  return dialLine({ address, token, deadlineMs: 5000, signal });
}

interface Heard {
  readonly kind?: string;
  readonly message?: { readonly port?: number };
}

/**
 * Sends a message, and the files of a job as they are asked for. Resolves with the reason why the
 * line ended.
 */
export function offer(
  line: Line,
  message: unknown,
  job: JobFiles,
  onHeard: (value: Heard) => void,
): Promise<string> {
  const bytes = Buffer.concat([...job.values()].flat());
  let sent = 0;
  return new Promise((resolve) => {
    line.handler = {
      message: (value) => {
        const heard = value as Heard & { readonly pieces: number };
        if (heard.kind !== "more") return onHeard(heard);
        for (let left = heard.pieces; left > 0 && sent < bytes.length; left--) {
          const piece = bytes.subarray(sent, sent + PIECE_BYTES);
          sent += piece.length;
          line.send({ v: AGENT_PROTOCOL, kind: "piece", bytes: piece.toString("base64") });
        }
      },
      closed: resolve,
    };
    line.send(message);
  });
}

/** Returns the first answer, or why there was none. */
export async function answerTo(
  address: string,
  message: unknown,
  job: JobFiles = new Map(),
): Promise<string> {
  const line = await dial(address);
  let answer: string | undefined;
  const why = await offer(line, message, job, (value) => {
    answer ??= JSON.stringify(value);
    line.close();
  });
  return answer ?? why;
}
