/** One rank that measures all-reduces; rank 0 prints one JSON object. Started by `allreduce.ts`. */
import { formatCosts, Group, measureCosts } from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { joinSharedMemory, joinTcp, listenTcp, type Transport } from "../src/transport/index.ts";
import { median } from "./report.ts";

export interface AllReduceRequest {
  readonly transport: "shared-memory" | "tcp";
  readonly name: string;
  readonly rank: number;
  readonly size: number;
  /** The first of `size` free ports. */
  readonly port: number;
  /** Bytes of each case. */
  readonly bytes: readonly number[];
}

export interface AllReduceMeasurement {
  readonly bytes: number;
  /** Median, in microseconds, of one all-reduce. */
  readonly medianUs: number;
  readonly bestUs: number;
  readonly algorithm: string;
}

const request = JSON.parse(process.argv[2] ?? "{}") as AllReduceRequest;
const engine = createOrtEngine({ threads: 1, spin: false });
const group = new Group({ engine, transport: await join(request) });
group.costs = await measureCosts(group);
if (request.rank === 0) console.error(`  ${formatCosts(group.costs)}`);
const results: AllReduceMeasurement[] = [];
for (const bytes of request.bytes) results.push(await measure(bytes));
if (request.rank === 0) console.log(JSON.stringify(results));
await group.close();
await engine.close();

/** TCP: rank r listens on the first port and r. */
async function join({ transport, name, rank, size, port }: AllReduceRequest): Promise<Transport> {
  if (transport === "shared-memory") return joinSharedMemory({ name, rank, size });
  const host = "127.0.0.1";
  const listener = await listenTcp({ host, port: port + rank, token: `${name} of a benchmark` });
  const addresses = Array.from({ length: size }, (_, peer) => `${host}:${port + peer}`);
  const joined = await joinTcp({ listener, addresses, rank, size });
  listener.close();
  return joined;
}

async function measure(bytes: number): Promise<AllReduceMeasurement> {
  const count = bytes / 4;
  const data = await group.allocate(bytes);
  const values = new Float32Array(data.bytes.buffer, data.bytes.byteOffset, count);
  const collective = { kind: "allReduce", count, dtype: "float32", reduction: "sum" } as const;
  const prepared = await group.prepare(collective, { data });
  const times: number[] = [];
  const repeats = bytes > 2 ** 24 ? 11 : bytes > 2 ** 20 ? 31 : 3001;
  for (let i = 0; i < repeats + 5; i++) {
    values.fill(1);
    await group.barrier();
    const start = performance.now();
    await prepared.run();
    if (i >= 5) times.push(performance.now() - start);
    if (values[0] !== group.size || values[count - 1] !== group.size) throw new Error("wrong sum");
  }
  prepared.close();
  group.release(data);
  return {
    bytes,
    medianUs: 1000 * median(times),
    bestUs: 1000 * Math.min(...times),
    algorithm: prepared.schedule.algorithm,
  };
}
