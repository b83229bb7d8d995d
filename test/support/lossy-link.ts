/**
 * Two network namespaces with a slow and lossy link between them: made by the kernel if it has
 * netem, otherwise by two TUN devices and a process that carries packets from one to the other.
 */
import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Carried } from "./link-relay.ts";

export interface LossyLink {
  /** Returns the words before a command that is to run at this end. */
  readonly prefix: (end: 0 | 1) => readonly string[];
  /** The address of each end. */
  readonly hosts: readonly [string, string];
  /** Cuts the link: nothing comes through, and nobody is told. */
  cut(): void;
  /** Ends the cut. */
  heal(): void;
  /** Undefined if the kernel carries the packets. */
  carried(): Promise<Carried | undefined>;
  close(): Promise<void>;
}

const HOSTS = ["10.77.0.1", "10.77.0.2"] as const;
const NETEM = "netem delay 3ms 1ms loss";
let links = 0;

/** Rejects with the reason if there can be no link. */
export async function openLossyLink(): Promise<LossyLink> {
  if (process.platform !== "linux") throw new Error("needs Linux");
  links += 1;
  const name = `ls${process.pid % 100_000}x${links}`;
  const spaces = [`${name}a`, `${name}b`] as const;
  const made: string[] = [];
  const close = () => {
    for (const space of made) run(`ip netns delete ${space}`);
  };
  try {
    for (const space of spaces) {
      run(`ip netns add ${space}`);
      made.push(space);
      run(`ip -n ${space} link set lo up`);
    }
    const ways = byKernel(name, spaces) ?? (await byRelay(name, spaces));
    for (const [end, space] of spaces.entries()) {
      const peer = HOSTS[1 - end];
      run(`ip -n ${space} address add ${HOSTS[end]} peer ${peer} dev ${name}${end}`);
      run(`ip -n ${space} link set ${name}${end} up`);
    }
    return {
      hosts: HOSTS,
      prefix: (end) => ["ip", "netns", "exec", spaces[end]],
      cut: ways.cut,
      heal: ways.heal,
      carried: ways.carried,
      close: async () => {
        await ways.close();
        close();
      },
    };
  } catch (error) {
    close();
    throw error;
  }
}

type Ways = Pick<LossyLink, "cut" | "heal" | "carried" | "close">;
type Spaces = readonly [string, string];

/** Returns undefined if the kernel has no netem. */
function byKernel(name: string, spaces: Spaces): Ways | undefined {
  const [a, b] = spaces;
  run(`ip link add ${name}0 netns ${a} type veth peer name ${name}1 netns ${b}`);
  const disturb = (verb: "add" | "change", loss: string) => {
    for (const [end, space] of spaces.entries()) {
      run(`ip netns exec ${space} tc qdisc ${verb} dev ${name}${end} root ${NETEM} ${loss}`);
    }
  };
  try {
    disturb("add", "2%");
  } catch {
    run(`ip -n ${a} link delete ${name}0`);
    return undefined;
  }
  return {
    cut: () => disturb("change", "100%"),
    heal: () => disturb("change", "2%"),
    carried: async () => undefined,
    close: async () => undefined,
  };
}

async function byRelay(name: string, [a, b]: Spaces): Promise<Ways> {
  const entry = fileURLToPath(new URL("link-relay.js", import.meta.url));
  const child = fork(entry, [`${name}0`, a, `${name}1`, b]);
  const ended = once(child, "exit");
  const { problem } = await answer(child);
  if (problem !== undefined) {
    await ended;
    throw new Error(`no TUN device: ${problem}`);
  }
  return {
    cut: () => void child.send("cut"),
    heal: () => void child.send("heal"),
    carried: async () => {
      const answered = answer(child);
      child.send("carried");
      return (await answered).carried;
    },
    close: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

interface Answer {
  readonly problem?: string;
  readonly carried?: Carried;
}

async function answer(child: ChildProcess): Promise<Answer> {
  const ended = once(child, "exit").then(() => [{ problem: "the relay ended" }]);
  const [message] = (await Promise.race([once(child, "message"), ended])) as [Answer];
  return message;
}

/** Throws with the command and its output. */
function run(command: string): void {
  const [program = "", ...words] = command.split(" ");
  const { status, stderr, error } = spawnSync(program, words, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command}: ${error?.message ?? stderr.trim()}`);
}
