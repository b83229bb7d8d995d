/**
 * How fast is an all-reduce of float32 between processes of one machine, over shared memory and over TCP, against Gloo
 * and OpenMPI in the same run?
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { AllReduceMeasurement, AllReduceRequest } from "./allreduce-child.ts";
import { type Benchmark, compared, type Row } from "./report.ts";

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const PYTHON = "/usr/bin/python3";
/** MiB, as the scripts of the peers print them. */
const CASES = [0.004, 0.25, 4, 25, 100] as const;
const BYTES = [4096, 2 ** 18, 2 ** 22, 25 * 2 ** 20, 100 * 2 ** 20] as const;
const ROUNDS = 2;
const FIRST_PORT = 29_600;

export const allreduce: Benchmark = {
  name: "allreduce",
  question: "all-reduce of float32 in one machine, against Gloo and OpenMPI",
  run: measureAll,
};

type Times = ReadonlyMap<number, number>;

async function measureAll(): Promise<{ rows: Row[]; missing: string[] }> {
  const rows: Row[] = [];
  const missing = new Set<string>();
  for (const size of [2, 4]) {
    const gloo = await bestOf(() => runGloo(size));
    const shared = await bestOf(() => runOurs("shared-memory", size));
    const mpi = await bestOf(() => runMpi(size));
    const tcp = await bestOf(() => runOurs("tcp", size));
    if (gloo.size === 0) missing.add("Gloo (Debian's python3-torch, and gloo_allreduce.py)");
    if (mpi.size === 0) missing.add("OpenMPI (openmpi-bin, python3-mpi4py, and mpi_allreduce.py)");
    for (const [index, mib] of CASES.entries()) {
      const bytes = BYTES[index] as number;
      const of = (name: string) => `${name}, ${size} ranks, ${mib} MiB`;
      if (index === 0 && size === 2)
        rows.push(latency(of("shared memory"), shared.get(mib) ?? NaN));
      rows.push(
        ...against(of("shared memory"), bytes, shared.get(mib), [
          ["Gloo", gloo.get(mib), size === 2 && index >= 2 ? 10 : 1],
          ["OpenMPI", mpi.get(mib), size === 2 && index >= 2 ? 2.5 : size === 2 ? undefined : 1],
        ]),
        ...against(of("TCP"), bytes, tcp.get(mib), [
          ["Gloo", gloo.get(mib), size === 4 ? undefined : index >= 2 ? 1.5 : 1],
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

/** The best median of a few runs, by case: what others do on the machine meanwhile only ever slows down. */
async function bestOf(measure: () => Promise<Times>): Promise<Times> {
  const best = new Map<number, number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [mib, us] of await measure()) best.set(mib, Math.min(us, best.get(mib) ?? Infinity));
  }
  return best;
}

let runs = 0;

async function runOurs(transport: AllReduceRequest["transport"], size: number): Promise<Times> {
  runs += 1;
  const port = FIRST_PORT + 10 * runs;
  const name = `bench-${process.pid}-${runs}`;
  const child = join(root, "build/benchmarks/allreduce-child.js");
  const outputs = await Promise.all(
    Array.from({ length: size }, (_, rank) => {
      const request: AllReduceRequest = { transport, name, rank, size, port, bytes: BYTES };
      return run(process.execPath, [child, JSON.stringify(request)], { timeout: 120_000 });
    }),
  );
  const found = JSON.parse(outputs[0]?.stdout ?? "[]") as AllReduceMeasurement[];
  return new Map(found.map(({ medianUs }, index) => [CASES[index] as number, medianUs]));
}

async function runGloo(size: number): Promise<Times> {
  const script = peerScript("gloo_allreduce.py");
  if (script === undefined) return new Map();
  const start = (rank: number) => runPeer(PYTHON, [script, String(rank), String(size)]);
  const texts = await Promise.all(Array.from({ length: size }, (_, rank) => start(rank)));
  return parseTimes(texts[0] ?? "");
}

async function runMpi(size: number): Promise<Times> {
  const script = peerScript("mpi_allreduce.py");
  if (script === undefined) return new Map();
  const options = ["--allow-run-as-root", "--oversubscribe", "-np", String(size)];
  return parseTimes(await runPeer("mpirun", [...options, PYTHON, script]));
}

function peerScript(name: string): string | undefined {
  const script = join(process.env["LOCKSTEP_PEERS"] ?? join(root, "../shared/peers"), name);
  return existsSync(script) && existsSync(PYTHON) ? script : undefined;
}

async function runPeer(command: string, args: readonly string[]): Promise<string> {
  const env = { ...process.env, OMP_NUM_THREADS: "1", OPENBLAS_NUM_THREADS: "1" };
  try {
    return (await run(command, [...args], { env, timeout: 120_000 })).stdout;
  } catch {
    return "";
  }
}

/** Lines like `gloo 0.25MB 0.245 ms …`: microseconds by MiB. */
function parseTimes(text: string): Times {
  const lines = [...text.matchAll(/^\w+ ([\d.]+)MB ([\d.]+) ms/gm)];
  return new Map(lines.map(([, mib, ms]) => [Number(mib), 1000 * Number(ms)]));
}
