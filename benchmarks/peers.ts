/** Peers: programs measured beside ours in the same run. One that is not there is named as missing. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

const PYTHON = "/usr/bin/python3";

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

/** Tokens/s printed as "tok/s N" or "N tok/s" by a script, or undefined if it could not be run. */
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

/** PyTorch's forward and backward (no optimizer step): `gpt_torch.py` under LOCKSTEP_PEERS. */
export function torchStep(
  root: string,
  { sizes, threads, repeats }: PeerOptions,
): number | undefined {
  const script = join(
    process.env["LOCKSTEP_PEERS"] ?? join(root, "../shared/peers"),
    "gpt_torch.py",
  );
  if (!existsSync(script) || !existsSync(PYTHON)) return undefined;
  return tokensPerSecond(PYTHON, [script], sizesAsEnvironment(sizes, threads, repeats));
}

/** Whole steps of PyTorch's DistributedDataParallel over Gloo, in tokens/s of all processes together. */
export function torchDdp(
  root: string,
  { sizes, threads, repeats, workers }: PeerOptions & { readonly workers: number },
): number | undefined {
  const script = join(root, "benchmarks/peers/gpt_ddp.py");
  if (!existsSync(PYTHON)) return undefined;
  const env = { ...sizesAsEnvironment(sizes, threads, repeats), W: String(workers) };
  return tokensPerSecond(PYTHON, [script], env);
}

/**
 * The design's spike: forward and hand-written backward as one ONNX graph (no optimizer step). LOCKSTEP_SPIKE names
 * a folder that holds `gpt-step.mjs` and in which `npm i onnxruntime-node onnx-proto` was run.
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
