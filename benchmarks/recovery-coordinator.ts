/**
 * A run over two agents whose launcher is killed and started again, alone and together with a
 * worker. Steps are read with their times from the metrics of the run, which its workers write.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { median, type Row } from "./report.ts";

const command = join(dirname(fileURLToPath(import.meta.url)), "../../dist/main.js");
const TOKEN = "the token of a benchmark";
const [ROUNDS, CALM_STEPS, LOOK_MS, PATIENCE_MS] = [3, 5, 50, 120_000];
const WORKERS_OF_AN_AGENT = 2;

interface Step {
  readonly step: number;
  /** Milliseconds since 1970, by the worker that leads. */
  readonly time: number;
}

/** @param job the folder of a job whose run does not end by itself */
export async function loseTheCoordinator(folder: string, job: string): Promise<Row[]> {
  const started: ChildProcess[] = [];
  const start = (cwd: string, ...words: readonly string[]) => {
    mkdirSync(cwd, { recursive: true });
    const env = { ...process.env, LOCKSTEP_TOKEN: TOKEN };
    const child = spawn(process.execPath, [command, ...words], { cwd, env });
    started.push(child);
    child.stdout.resume();
    child.stderr.on("data", (piece: Buffer) => process.stderr.write(piece));
    return child;
  };
  try {
    const agents = ["a", "b"].map((name) => start(join(folder, name), "agent", "--listen", "0"));
    const hosts = await Promise.all(agents.map(addressOf));
    const words = ["train", job, "--hosts", hosts.join(","), "--threads", "1", "--anew"];
    const launch = () =>
      start(
        folder,
        ...words,
        "--workers",
        `${WORKERS_OF_AN_AGENT}`,
        "--state",
        "state",
        "--out",
        "out",
      );
    const steps = () => stepsIn(join(folder, "a/out/metrics.jsonl"));
    let launcher = launch();
    const kill = async () => {
      const closed = once(launcher, "close");
      launcher.kill("SIGKILL");
      await closed;
    };
    const [pauses, returns]: [number[], number[]] = [[], []];
    await more(steps, CALM_STEPS);
    for (let round = 0; round < ROUNDS; round++) {
      const from = steps().length;
      await kill();
      await more(steps, CALM_STEPS);
      launcher = launch();
      await more(steps, 2 * CALM_STEPS);
      pauses.push(Math.max(...gaps(steps().slice(from - 1))) - median(gaps(steps())));
    }
    for (let round = 0; round < ROUNDS; round++) {
      await kill();
      const [victim] = childrenOf(agents[1] as ChildProcess);
      process.kill(victim as number, "SIGKILL");
      const backAt = Date.now();
      launcher = launch();
      await more(steps, 1);
      const next = steps().find(({ time }) => time > backAt);
      // A step that the others had made before they knew of the loss says nothing.
      returns.push(((next?.time ?? Number.NaN) - backAt) / 1000 - median(gaps(steps())));
      await more(steps, 4 * CALM_STEPS);
    }
    const stopped = once(launcher, "close");
    launcher.kill("SIGINT");
    await stopped;
    const whole = steps().every(({ step }, index) => step === index + 1);
    return [
      within(
        `launcher killed and started again: the longest step (median of ${ROUNDS})`,
        pauses,
        0.5,
      ),
      within(
        `launcher and a worker killed: from its start to a step (median of ${ROUNDS})`,
        returns,
        5,
      ),
      {
        case: "  every step committed once",
        value: Number(whole),
        unit: "(1: yes)",
        goal: "1",
        reached: whole,
      },
    ];
  } finally {
    for (const child of started.reverse()) {
      const isOver = child.exitCode !== null || child.signalCode !== null;
      const closed = isOver ? undefined : once(child, "close");
      child.kill("SIGTERM");
      await closed;
    }
  }
}

function within(name: string, seconds: readonly number[], most: number): Row {
  const value = median(seconds);
  return {
    case: name,
    value,
    unit: "s beyond a step",
    goal: `under ${most} s`,
    reached: value < most,
  };
}

/** Resolves with the address at which an agent listens. */
function addressOf(agent: ChildProcess): Promise<string> {
  let text = "";
  return new Promise((resolve, reject) => {
    agent.stdout?.on("data", (piece: Buffer) => {
      text += piece.toString();
      const address = /^Listening on (\S+?)\.$/m.exec(text)?.[1];
      if (address !== undefined) resolve(address);
    });
    agent.once("close", () => reject(new Error(`An agent ended: ${text}`)));
  });
}

/** Waits for more steps than there are. */
async function more(steps: () => readonly Step[], count: number): Promise<void> {
  const wanted = steps().length + count;
  const end = performance.now() + PATIENCE_MS;
  while (steps().length < wanted) {
    if (performance.now() > end) throw new Error(`No ${count} steps came in ${PATIENCE_MS} ms.`);
    await delay(LOOK_MS);
  }
}

function stepsIn(path: string): Step[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  return lines.flatMap((line) => {
    const { type, step, time } = JSON.parse(line) as Step & { readonly type: string };
    return type === "step" ? [{ step, time }] : [];
  });
}

/** The seconds between steps. */
function gaps(steps: readonly Step[]): number[] {
  return steps.slice(1).map(({ time }, index) => (time - (steps[index] as Step).time) / 1000);
}

function childrenOf({ pid }: ChildProcess): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return readFileSync(path, "utf8").trim().split(/\s+/).map(Number);
}
