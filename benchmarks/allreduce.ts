/**
 * How fast is the sum of a flat vector of float32 over processes of one computer, as a run makes it
 * of its gradients, over shared memory and over TCP? Against the all-reduces of Gloo and OpenMPI,
 * and of another revision, in the same run.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { AllReduceMeasurement, AllReduceRequest } from "./allreduce-child.ts";
import { type Benchmark, compared, type Row } from "./report.ts";

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const PYTHON = "/usr/bin/python3";
/** For Gloo: one that has PyTorch. */
const TORCH_PYTHON = process.env["LOCKSTEP_PYTHON"] ?? PYTHON;
/**
 * The folder of a built checkout of another revision, whose `allreduce-child.js` is measured too.
 */
const BEFORE = process.env["LOCKSTEP_BEFORE"];
/** MiB, as the scripts of the peers print them. */
const CASES = [0.004, 0.25, 4, 25, 100] as const;
const BYTES = [4096, 2 ** 18, 2 ** 22, 25 * 2 ** 20, 100 * 2 ** 20] as const;
const ROUNDS = 2;
const FIRST_PORT = 29_600;

export const allreduce: Benchmark = {
  name: "allreduce",
  question: "the sum of float32 over processes, against the all-reduces of Gloo and OpenMPI",
  run: measureAll,
};

/** Microseconds by MiB. */
type Times = Map<number, number>;

async function measureAll(): Promise<{ rows: Row[]; missing: string[] }> {
  const rows: Row[] = [];
  const missing = new Set<string>();
  for (const size of [2, 4]) {
    const { gloo, shared, sharedBefore, mpi, tcp, tcpBefore } = await bestOf({
      gloo: () => runGloo(size),
      shared: () => runOurs(root, "shared-memory", size),
      sharedBefore: () => runBefore("shared-memory", size),
      mpi: () => runMpi(size),
      tcp: () => runOurs(root, "tcp", size),
      tcpBefore: () => runBefore("tcp", size),
    });
    if (gloo.size === 0) missing.add("Gloo (PyTorch, and gloo_allreduce.py)");
    if (mpi.size === 0) missing.add("OpenMPI (openmpi-bin, python3-mpi4py, and mpi_allreduce.py)");
    if (BEFORE === undefined) missing.add("another revision (LOCKSTEP_BEFORE names its folder)");
    const before = basename(BEFORE ?? "");
    for (const [index, mib] of CASES.entries()) {
      const bytes = BYTES[index] as number;
      const of = (name: string) => `${name}, ${size} ranks, ${mib} MiB`;
      if (index === 0 && size === 2)
        rows.push(latency(of("shared memory"), shared.get(mib) ?? NaN));
      rows.push(
        ...against(of("shared memory"), bytes, shared.get(mib), [
          ["Gloo", gloo.get(mib), size === 2 && index >= 2 ? 10 : 1],
          ["OpenMPI", mpi.get(mib), size === 2 && index >= 2 ? 2.5 : size === 2 ? undefined : 1],
          [before, sharedBefore.get(mib), 0.98],
        ]),
        ...against(of("TCP"), bytes, tcp.get(mib), [
          ["Gloo", gloo.get(mib), size === 4 ? undefined : index >= 2 ? 1.5 : 1],
          [before, tcpBefore.get(mib), 0.98],
        ]),
      );
    }
  }
  return { rows, missing: [...missing] };
}

function latency(name: string, us: number): Row {
  return { case: name, value: us, unit: "µs", goal: "at most 15 µs", reached: us <= 15 };
}

function against(
  name: string,
  bytes: number,
  us: number | undefined,
  peers: readonly (readonly [string, number | undefined, number | undefined])[],
): Row[] {
  if (us === undefined) return [];
  if (peers.every(([, time]) => time === undefined)) {
    return [{ case: name, value: bytes / us / 1000, unit: "GB/s" }];
  }
  const rate = (time: number) => bytes / time / 1000;
  return peers.flatMap(([peer, time, least]) =>
    time === undefined
      ? []
      : [
          compared(
            {
              case: name,
              value: rate(us),
              unit: "GB/s",
              peer,
              peerValue: rate(time),
              ...(least === undefined ? {} : { goal: `at least ${least}x ${peer}` }),
            },
            least,
          ),
        ],
  );
}

/**
 * The best medians of a few rounds, in which all take turns: other work on the computer only ever
 * slows them down.
 */
async function bestOf<Name extends string>(
  measures: Readonly<Record<Name, () => Promise<Times>>>,
): Promise<Record<Name, Times>> {
  const names = Object.keys(measures) as Name[];
  const best = Object.fromEntries(names.map((name) => [name, new Map()])) as Record<Name, Times>;
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of names) {
      for (const [mib, us] of await measures[name]()) {
        best[name].set(mib, Math.min(us, best[name].get(mib) ?? Infinity));
      }
    }
  }
  return best;
}

let runs = 0;

async function runOurs(
  folder: string,
  transport: AllReduceRequest["transport"],
  size: number,
): Promise<Times> {
  runs += 1;
  const port = FIRST_PORT + 10 * runs;
  const name = `bench-${process.pid}-${runs}`;
  const child = join(folder, "build/benchmarks/allreduce-child.js");
  const outputs = await Promise.all(
    Array.from({ length: size }, (_, rank) => {
      const request: AllReduceRequest = { transport, name, rank, size, port, bytes: BYTES };
      return run(process.execPath, [child, JSON.stringify(request)], { timeout: 300_000 });
    }),
  );
  const found = JSON.parse(outputs[0]?.stdout ?? "[]") as AllReduceMeasurement[];
  return new Map(found.map(({ medianUs }, index) => [CASES[index] as number, medianUs]));
}

async function runBefore(transport: AllReduceRequest["transport"], size: number): Promise<Times> {
  return BEFORE === undefined ? new Map() : runOurs(BEFORE, transport, size);
}

async function runGloo(size: number): Promise<Times> {
  const script = peerScript("gloo_allreduce.py", TORCH_PYTHON);
  if (script === undefined) return new Map();
  const start = (rank: number) => runPeer(TORCH_PYTHON, [script, String(rank), String(size)]);
  const texts = await Promise.all(Array.from({ length: size }, (_, rank) => start(rank)));
  return parseTimes(texts[0] ?? "");
}

async function runMpi(size: number): Promise<Times> {
  const script = peerScript("mpi_allreduce.py", PYTHON);
  if (script === undefined) return new Map();
  const options = ["--allow-run-as-root", "--oversubscribe", "-np", String(size)];
  return parseTimes(await runPeer("mpirun", [...options, PYTHON, script]));
}

function peerScript(name: string, python: string): string | undefined {
  const script = join(process.env["LOCKSTEP_PEERS"] ?? join(root, "../shared/peers"), name);
  return existsSync(script) && existsSync(python) ? script : undefined;
}

async function runPeer(command: string, args: readonly string[]): Promise<string> {
  const env = { ...process.env, OMP_NUM_THREADS: "1", OPENBLAS_NUM_THREADS: "1" };
  try {
    return (await run(command, [...args], { env, timeout: 300_000 })).stdout;
  } catch {
    return "";
  }
}

/** Lines like `gloo 0.25MB 0.245 ms …`: microseconds by MiB. */
function parseTimes(text: string): Times {
  const lines = [...text.matchAll(/^\w+ ([\d.]+)MB ([\d.]+) ms/gm)];
  return new Map(lines.map(([, mib, ms]) => [Number(mib), 1000 * Number(ms)]));
}
