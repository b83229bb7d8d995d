/**
 * Peers: programs that are measured beside ours in the same run. A peer that is not installed is
 * named as missing.
 */
import { type ChildProcessByStdio, execFile, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import type { Link } from "./link.ts";
import { median } from "./report.ts";

/** The Python of the peers: LOCKSTEP_PYTHON names one that has PyTorch. Default: the system's. */
const PYTHON = process.env["LOCKSTEP_PYTHON"] ?? "/usr/bin/python3";

export interface GptSizes {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly context: number;
  readonly batch: number;
  readonly vocabulary: number;
}

function sizesAsEnvironment(sizes: GptSizes, threads: number, repeats: number): NodeJS.ProcessEnv {
  return {
    ...process.env,
    L: String(sizes.layers),
    D: String(sizes.width),
    H: String(sizes.heads),
    T: String(sizes.context),
    B: String(sizes.batch),
    V: String(sizes.vocabulary),
    THR: String(threads),
    R: String(repeats),
    OMP_NUM_THREADS: String(threads),
    OPENBLAS_NUM_THREADS: String(threads),
  };
}

/**
 * Returns the tokens/s that a script prints as "tok/s N" or "N tok/s", or undefined if it cannot be
 * run.
 */
function tokensPerSecond(command: string, args: string[], env: NodeJS.ProcessEnv, cwd?: string) {
  try {
    const text = execFileSync(command, args, {
      encoding: "utf8",
      env,
      cwd,
      timeout: 300_000,
      stdio: ["ignore", "pipe", "ignore"],
    });
    const found = /tok\/s (\d+)/.exec(text);
    return found === null ? undefined : Number(found[1]);
  } catch {
    return undefined;
  }
}

export interface PeerOptions {
  readonly sizes: GptSizes;
  readonly threads: number;
  readonly repeats: number;
}

/** Measures whole training steps of PyTorch 2: `gpt_torch2.py` under LOCKSTEP_PEERS. */
export function torchStep(
  root: string,
  options: PeerOptions & { readonly bfloat16?: boolean; readonly compiled?: boolean },
): number | undefined {
  const { sizes, threads, repeats, bfloat16 = false, compiled = false } = options;
  const folder = process.env["LOCKSTEP_PEERS"] ?? join(root, "../shared/peers");
  const script = join(folder, "gpt_torch2.py");
  if (!existsSync(script) || !existsSync(PYTHON)) return undefined;
  const modes = { ...(bfloat16 ? { BF16: "1" } : {}), ...(compiled ? { COMP: "1" } : {}) };
  const env = { ...sizesAsEnvironment(sizes, threads, repeats), ...modes };
  return tokensPerSecond(PYTHON, [script], env);
}

/**
 * Measures whole steps of PyTorch's DistributedDataParallel over Gloo, in tokens/s of all processes
 * together.
 */
export function torchDdp(
  root: string,
  { sizes, threads, repeats, workers }: PeerOptions & { readonly workers: number },
): number | undefined {
  const script = join(root, "benchmarks/peers/gpt_ddp.py");
  if (!existsSync(PYTHON)) return undefined;
  const env = { ...sizesAsEnvironment(sizes, threads, repeats), W: String(workers) };
  return tokensPerSecond(PYTHON, [script], env);
}

/** Measures whole steps of PyTorch's `parallelize_module` over Gloo, in tokens/s. */
export function torchTensor(
  root: string,
  { sizes, threads, repeats, workers }: PeerOptions & { readonly workers: number },
): number | undefined {
  const script = join(root, "benchmarks/peers/gpt_tensor.py");
  if (!existsSync(PYTHON)) return undefined;
  const env = { ...sizesAsEnvironment(sizes, threads, repeats), W: String(workers) };
  return tokensPerSecond(PYTHON, [script], env);
}

/** Measures whole steps of PyTorch's pipeline (`Schedule1F1B`) over Gloo, in tokens/s. */
export function torchPipeline(
  root: string,
  options: PeerOptions & { readonly workers: number; readonly microBatches: number },
): number | undefined {
  const { sizes, threads, repeats, workers, microBatches } = options;
  const script = join(root, "benchmarks/peers/gpt_pipeline.py");
  if (!existsSync(PYTHON)) return undefined;
  const env = sizesAsEnvironment(sizes, threads, repeats);
  return tokensPerSecond(PYTHON, [script], { ...env, W: String(workers), M: String(microBatches) });
}

export interface LstmSizes {
  readonly hidden: number;
  readonly context: number;
  readonly batch: number;
  readonly vocabulary: number;
}

/**
 * Measures whole steps of PyTorch's `nn.LSTM` between an embedding and a linear layer, in tokens/s.
 */
export function torchLstm(
  root: string,
  { sizes, threads, repeats }: { sizes: LstmSizes; threads: number; repeats: number },
): number | undefined {
  const script = join(root, "benchmarks/peers/lstm_torch.py");
  if (!existsSync(PYTHON)) return undefined;
  const all = { ...sizes, layers: 1, width: sizes.hidden, heads: 1 };
  return tokensPerSecond(PYTHON, [script], sizesAsEnvironment(all, threads, repeats));
}

export interface Restarts {
  /** From the end of a process to the next step, in seconds. */
  readonly seconds: readonly number[];
  /** The median seconds of a step with its checkpoint. */
  readonly step: number;
}

/**
 * Measures how long torchrun takes to continue after one of its processes was killed: it restarts
 * all of them, and they continue from the checkpoint of the last step. Linux only.
 */
export async function torchElastic(
  root: string,
  { sizes, threads, repeats, workers, kills }: PeerOptions & { workers: number; kills: number },
): Promise<Restarts | undefined> {
  if (!existsSync(PYTHON)) return undefined;
  const folder = mkdtempSync(join(tmpdir(), "lockstep-bench-"));
  const words = ["--standalone", `--nproc-per-node=${workers}`, `--max-restarts=${10 * kills}`];
  const script = join(root, "benchmarks/peers/gpt_elastic.py");
  const torchrun = spawn(PYTHON, ["-m", "torch.distributed.run", ...words, script], {
    env: {
      ...sizesAsEnvironment(sizes, threads, repeats),
      CHECKPOINT: join(folder, "checkpoint"),
      GLOO_SOCKET_IFNAME: "lo",
    },
    stdio: ["ignore", "pipe", "ignore"],
  });
  try {
    return await killAgainAndAgain(torchrun, workers, kills);
  } finally {
    torchrun.kill("SIGTERM"); // it ends its processes
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Kills one process after the other, each after some steps. Undefined if the steps end. */
function killAgainAndAgain(
  torchrun: ChildProcessByStdio<null, Readable, null>,
  workers: number,
  kills: number,
): Promise<Restarts | undefined> {
  const [seconds, times]: [number[], number[]] = [[], []];
  const pids = new Map<number, number>();
  let [stepAt, killedAt, calm] = [0, 0, 0];
  /** Returns false for a process that has not said its number. */
  const kill = (): boolean => {
    const pid = pids.get(seconds.length % workers);
    killedAt = performance.now();
    return pid !== undefined && process.kill(pid, "SIGKILL");
  };
  return new Promise((resolve) => {
    torchrun.on("error", () => resolve(undefined));
    torchrun.on("close", () => resolve(undefined));
    createInterface({ input: torchrun.stdout }).on("line", (line) => {
      // Processes that start together may write into one line.
      for (const [, rank, pid] of line.matchAll(/rank (\d+) pid (\d+)/g)) {
        pids.set(Number(rank), Number(pid));
      }
      if (!line.startsWith("step ")) return;
      const at = performance.now();
      if (killedAt > 0) seconds.push((at - killedAt) / 1000);
      else if (calm > 1) times.push((at - stepAt) / 1000);
      calm = killedAt > 0 ? 0 : calm + 1;
      [stepAt, killedAt] = [at, 0];
      if (seconds.length === kills) resolve({ seconds, step: median(times) });
      // At another time of a step each time, by the golden ratio.
      else if (calm === 4) {
        const wait = 1000 * median(times) * ((seconds.length * 0.618) % 1);
        setTimeout(() => kill() || resolve(undefined), wait);
      }
    });
  });
}

/** Measures `torchDdp` with one process at each end of a link. */
export async function torchDdpOver(
  root: string,
  link: Link,
  { sizes, threads, repeats }: PeerOptions,
): Promise<number | undefined> {
  const script = join(root, "benchmarks/peers/gpt_ddp.py");
  if (!existsSync(PYTHON)) return undefined;
  const folder = mkdtempSync(join(tmpdir(), "lockstep-bench-"));
  const start = (rank: 0 | 1) => {
    const env = {
      ...sizesAsEnvironment(sizes, threads, repeats),
      W: "2",
      RANK: String(rank),
      MEETING: join(folder, "meeting"),
      GLOO_SOCKET_IFNAME: link.devices[rank],
    };
    const [program, ...words] = [...link.prefix(rank), PYTHON, script];
    return promisify(execFile)(program, words, { env, timeout: 300_000 });
  };
  try {
    const [first] = await Promise.all([start(0), start(1)]);
    const found = /tok\/s (\d+)/.exec(first.stdout);
    return found === null ? undefined : Number(found[1]);
  } catch {
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Measures the design's spike: forward and hand-written backward as one ONNX graph (without an
 * optimizer step). LOCKSTEP_SPIKE names a folder that contains `gpt-step.mjs` and in which `npm i
 * onnxruntime-node onnx-proto` was run.
 */
export function spikeStep({ sizes, threads, repeats }: PeerOptions): number | undefined {
  const folder = process.env["LOCKSTEP_SPIKE"];
  if (folder === undefined || !existsSync(join(folder, "gpt-step.mjs"))) return undefined;
  return tokensPerSecond(
    process.execPath,
    ["gpt-step.mjs"],
    sizesAsEnvironment(sizes, threads, repeats),
    folder,
  );
}
