/** Two machines with a slow network between them: what does it win to send gradients while others are computed? */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Link, makeLink } from "./link.ts";
import { type GptSizes, torchDdpOver } from "./peers.ts";
import { type Benchmark, compared, type Row } from "./report.ts";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const SIZES: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
const MEGABITS = 1000;
const ROUNDS = 2;
const REPEATS = 5;
const FIRST_PORT = 29_800;
/** A bucket that is never full: all gradients travel when all are there. */
const WHOLE = 2 ** 40;

export const network: Benchmark = {
  name: "network",
  question: `GPT training steps in tokens/s on two workers with a network of ${MEGABITS} Mbit/s between them`,
  run: measureAll,
};

async function measureAll(): Promise<{ rows: Row[]; missing: string[] }> {
  const link = makeLink(MEGABITS);
  if (link === undefined) return { rows: [], missing: ["network namespaces with tbf (iproute2)"] };
  try {
    return await measureOver(link);
  } finally {
    link.close();
  }
}

async function measureOver(link: Link): Promise<{ rows: Row[]; missing: string[] }> {
  const best = { overlapped: 0, whole: 0, memory: 0 };
  let torch: number | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    best.memory = Math.max(best.memory, await workers(undefined));
    best.overlapped = Math.max(best.overlapped, await workers(link));
    best.whole = Math.max(best.whole, await workers(link, { bucketBytes: WHOLE }));
    const peer = await torchDdpOver(root, link, { sizes: SIZES, threads: 1, repeats: REPEATS });
    if (peer !== undefined) torch = Math.max(torch ?? 0, peer);
  }
  const tokens = (speed: number) => speed * SIZES.batch * SIZES.context;
  const row = { case: "2 machines, 1 thread each", value: tokens(best.overlapped) };
  const against = (peer: string, peerValue: number, goal?: number) =>
    compared(
      {
        ...row,
        unit: "tokens/s",
        peer,
        peerValue,
        ...(goal === undefined ? {} : { goal: `at least ${goal}x` }),
      },
      goal,
    );
  const rows = [
    against("all gradients at the end", tokens(best.whole), 1),
    against("the same two workers over shared memory", tokens(best.memory)),
  ];
  if (torch === undefined) return { rows, missing: ["PyTorch (Debian's python3-torch)"] };
  return { rows: [...rows, against("PyTorch DDP with Gloo", torch)], missing: [] };
}

let runs = 0;

/** Steps a second; over shared memory where there is no link. */
async function workers(
  link: Link | undefined,
  request: Partial<ScalingRequest> = {},
): Promise<number> {
  runs += 1;
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const port = FIRST_PORT + runs;
  const addresses = link?.addresses.map((address) => `${address}:${port}`);
  const found = await Promise.all(
    ([0, 1] as const).map(async (rank) => {
      const group = { name, rank, size: 2, ...(addresses === undefined ? {} : { addresses }) };
      const own: ScalingRequest = {
        sizes: SIZES,
        microBatches: 4,
        threads: 1,
        repeats: REPEATS,
        ...request,
        group,
      };
      const entry = join(root, "build/benchmarks/scaling-child.js");
      const prefix = link?.prefix(rank) ?? ["env"];
      const [program, ...words] = [...prefix, process.execPath, entry, JSON.stringify(own)];
      const { stdout } = await promisify(execFile)(program, words);
      return JSON.parse(stdout) as ScalingMeasurement;
    }),
  );
  return 1 / Math.max(...found.map(({ seconds }) => seconds));
}
