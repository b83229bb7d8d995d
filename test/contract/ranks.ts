/** Starts ranks as processes of their own, and gathers their results. */
import { spawn } from "node:child_process";
import net from "node:net";
import { fileURLToPath } from "node:url";
import type { RankResult, RankTask } from "./child-rank.ts";

const child = fileURLToPath(new URL("./child-rank.js", import.meta.url));
let groups = 0;

export interface RanksOptions extends Omit<RankTask, "rank" | "name" | "addresses"> {
  readonly host?: string;
  /** The tokens of ranks that have another one. */
  readonly tokens?: Readonly<Record<number, string>>;
  /** Words before the command, by rank: another network, a limit. */
  readonly prefix?: (rank: number) => readonly string[];
  readonly addresses?: readonly string[];
  /** Ranks that were stopped, and are killed at the end. */
  readonly stopped?: readonly number[];
  /** Called when the rank with a fault has reached it. */
  readonly onFault?: () => void;
}

/** Returns the last result of each rank; undefined if it reported nothing. */
export async function runRanks(options: RanksOptions): Promise<(RankResult | undefined)[]> {
  groups += 1;
  const name = `ranks-${process.pid}-${groups}`;
  const { host = "127.0.0.1", size, tokens = {}, prefix, stopped = [], onFault, ...rest } = options;
  const ports = await freePorts(host, size);
  const near = host.includes(":") ? `[${host}]` : host;
  const addresses = options.addresses ?? ports.map((port) => `${near}:${port}`);
  const processes = ports.map((_, rank) => {
    const token = tokens[rank] ?? "a secret of tests";
    const task: RankTask = { ...rest, size, name, addresses, rank, token };
    const command = [...(prefix?.(rank) ?? []), process.execPath, child, JSON.stringify(task)];
    const started = spawn(command[0] as string, command.slice(1), {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    started.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      if (rank === options.fault?.rank && text === chunk) onFault?.();
    });
    const ended = new Promise<string>((resolve) => {
      started.once("close", () => resolve(text));
    });
    return { started, ended };
  });
  const timer = setTimeout(() => {
    for (const { started } of processes) started.kill("SIGKILL");
  }, 60_000);
  const living = processes.filter((_, rank) => !stopped.includes(rank));
  await Promise.all(living.map(({ ended }) => ended));
  for (const { started } of processes) started.kill("SIGKILL");
  const texts = await Promise.all(processes.map(({ ended }) => ended));
  clearTimeout(timer);
  return texts.map((text) => {
    const last = text.trim().split("\n").at(-1);
    return last === undefined || last === "" ? undefined : (JSON.parse(last) as RankResult);
  });
}

/** Ports at which nothing listens. */
export async function freePorts(host: string, count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<net.Server>((resolve) => {
          const server = net.createServer();
          server.listen(0, host, () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => (server.address() as net.AddressInfo).port);
  for (const server of servers) server.close();
  return ports;
}
