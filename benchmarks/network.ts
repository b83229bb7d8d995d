/**
 * Two machines with a slow network between them: what is gained by sending gradients while others
 * are computed?
 */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Revision } from "./against.ts";
import { type Link, makeLink } from "./link.ts";
import { type GptSizes, torchDdpOver } from "./peers.ts";
import { type Benchmark, type BenchmarkOptions, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const SIZES: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
const MEGABITS = 1000;
const ROUNDS = 3;
const REPEATS = 5;
const FIRST_PORT = 29_800;
/** A bucket that is never full, so that all gradients are sent when all are ready. */
const WHOLE = 2 ** 40;

export const network: Benchmark = {
  name: "network",
  question: `GPT training steps in tokens/s on two workers with a network of ${MEGABITS} Mbit/s between them`,
  comparesRevisions: true,
  run: measureAll,
};

async function measureAll({ against }: BenchmarkOptions): Promise<{
  rows: Row[];
  missing: string[];
}> {
  const link = makeLink(MEGABITS);
  if (link === undefined) return { rows: [], missing: ["network namespaces with tbf (iproute2)"] };
  try {
    return await measureOver(link, against);
  } finally {
    link.close();
  }
}

async function measureOver(link: Link, against: Revision | undefined) {
  const found = await takeTurns(
    {
      overlapped: () => workers(link),
      before: () => against && workers(link, {}, against.folder),
      whole: () => workers(link, { bucketBytes: WHOLE }),
      memory: () => workers(undefined),
      torch: () => torchDdpOver(root, link, { sizes: SIZES, threads: 1, repeats: REPEATS }),
    },
    ROUNDS,
  );
  const beside = (peer: string, values: readonly number[], least?: number) =>
    compared(
      {
        case: "2 nodes, 1 thread each",
        value: median(found.overlapped),
        unit: "tokens/s",
        peer,
        peerValue: median(values),
        ratio: ratioOf(found.overlapped, values),
        ...(least === undefined ? {} : { goal: `at least ${least}x` }),
      },
      least,
    );
  const rows: Row[] = [
    beside("all gradients at the end", found.whole, 1),
    beside("the same two workers over shared memory", found.memory),
  ];
  if (against !== undefined) rows.push(beside(against.name, found.before, 0.98));
  if (found.torch.length < ROUNDS) return { rows, missing: ["PyTorch (LOCKSTEP_PYTHON)"] };
  return { rows: [...rows, beside("PyTorch DDP with Gloo", found.torch)], missing: [] };
}

let runs = 0;

/** Returns tokens per second; over shared memory if there is no link. */
async function workers(
  link: Link | undefined,
  request: Partial<ScalingRequest> = {},
  folder = root,
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
      const entry = join(folder, "build/benchmarks/scaling-child.js");
      const prefix = link?.prefix(rank) ?? ["env"];
      const [program, ...words] = [...prefix, process.execPath, entry, JSON.stringify(own)];
      const { stdout } = await promisify(execFile)(program, words);
      return JSON.parse(stdout) as ScalingMeasurement;
    }),
  );
  return (SIZES.batch * SIZES.context) / Math.max(...found.map(({ seconds }) => seconds));
}
