/**
 * How fast is the sum of a flat vector of float32 over the processes of one computer, in the form
 * in which a run sums its gradients, over shared memory and over TCP? Compared with the all-reduces
 * of Gloo and OpenMPI, and of another revision, in the same run.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { AllReduceMeasurement, AllReduceRequest } from "./allreduce-child.ts";
import { type Benchmark, type BenchmarkOptions, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const PYTHON = "/usr/bin/python3";
/** The Python for Gloo, which needs PyTorch. */
const TORCH_PYTHON = process.env["LOCKSTEP_PYTHON"] ?? PYTHON;
/** Sizes in MiB, as the scripts of the peers print them. */
const CASES = [0.004, 0.25, 4, 25, 100] as const;
const BYTES = [4096, 2 ** 18, 2 ** 22, 25 * 2 ** 20, 100 * 2 ** 20] as const;
const ROUNDS = 3;
const FIRST_PORT = 29_600;

export const allreduce: Benchmark = {
  name: "allreduce",
  question: "the sum of float32 over processes, against the all-reduces of Gloo and OpenMPI",
  comparesRevisions: true,
  run: measureAll,
};

/** Microseconds by size in MiB. */
type Times = Map<number, number>;

async function measureAll({ against }: BenchmarkOptions): Promise<{
  rows: Row[];
  missing: string[];
}> {
  const rows: Row[] = [];
  const missing = new Set<string>();
  for (const size of [2, 4]) {
    const before = (transport: AllReduceRequest["transport"]) =>
      against && runOurs(against.folder, transport, size);
    const { gloo, shared, sharedBefore, mpi, tcp, tcpBefore } = await takeTurns(
      {
        gloo: () => runGloo(size),
        shared: () => runOurs(root, "shared-memory", size),
        sharedBefore: () => before("shared-memory"),
        mpi: () => runMpi(size),
        tcp: () => runOurs(root, "tcp", size),
        tcpBefore: () => before("tcp"),
      },
      ROUNDS,
    );
    if (gloo.length < ROUNDS) missing.add("Gloo (LOCKSTEP_PYTHON has PyTorch)");
    if (mpi.length < ROUNDS) missing.add("OpenMPI (openmpi-bin, python3-mpi4py)");
    const revision = against?.name ?? "";
    for (const [index, mib] of CASES.entries()) {
      const bytes = BYTES[index] as number;
      const of = (name: string) => `${name}, ${size} ranks, ${mib} MiB`;
      const at = (rounds: readonly Times[]) => rounds.map((times) => times.get(mib) ?? Number.NaN);
      if (index === 0 && size === 2) rows.push(latency(of("shared memory"), median(at(shared))));
      rows.push(
        ...beside(of("shared memory"), bytes, at(shared), [
          ["Gloo", at(gloo), size === 2 && index >= 2 ? 10 : 1],
          ["OpenMPI", at(mpi), size === 2 && index >= 2 ? 2.5 : size === 2 ? undefined : 1],
          [revision, at(sharedBefore), 0.98],
        ]),
        ...beside(of("TCP"), bytes, at(tcp), [
          ["Gloo", at(gloo), size === 4 ? undefined : index >= 2 ? 1.5 : 1],
          [revision, at(tcpBefore), 0.98],
        ]),
      );
    }
  }
  return { rows, missing: [...missing] };
}

function latency(name: string, us: number): Row {
  return { case: name, value: us, unit: "µs", goal: "at most 15 µs", reached: us <= 15 };
}

/**
 * @param us microseconds by round
 * @param peers each with its microseconds by round and its goal
 */
function beside(
  name: string,
  bytes: number,
  us: readonly number[],
  peers: readonly (readonly [string, readonly number[], number | undefined])[],
): Row[] {
  const rate = (times: readonly number[]) => bytes / median(times) / 1000;
  const row = { case: name, value: rate(us), unit: "GB/s" };
  const found = peers.filter(([, times]) => times.length === us.length);
  if (found.length === 0) return [row];
  return found.map(([peer, times, least]) =>
    compared(
      {
        ...row,
        peer,
        peerValue: rate(times),
        ratio: ratioOf(times, us),
        ...(least === undefined ? {} : { goal: `at least ${least}x ${peer}` }),
      },
      least,
    ),
  );
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

async function runGloo(size: number): Promise<Times | undefined> {
  const script = peerScript("gloo_allreduce.py", TORCH_PYTHON);
  if (script === undefined) return undefined;
  const start = (rank: number) => runPeer(TORCH_PYTHON, [script, String(rank), String(size)]);
  const texts = await Promise.all(Array.from({ length: size }, (_, rank) => start(rank)));
  return parseTimes(texts[0] ?? "");
}

async function runMpi(size: number): Promise<Times | undefined> {
  const script = peerScript("mpi_allreduce.py", PYTHON);
  if (script === undefined) return undefined;
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

/** Parses lines like `gloo 0.25MB 0.245 ms …` into microseconds by size in MiB. */
function parseTimes(text: string): Times | undefined {
  const lines = [...text.matchAll(/^\w+ ([\d.]+)MB ([\d.]+) ms/gm)];
  if (lines.length === 0) return undefined;
  return new Map(lines.map(([, mib, ms]) => [Number(mib), 1000 * Number(ms)]));
}
