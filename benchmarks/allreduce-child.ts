/**
 * One rank that measures the sum of a flat vector over all ranks, made by the stages that a run has
 * for its gradients. Rank 0 prints one JSON object. Started by `allreduce.ts`.
 */
import { Group } from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { instantiate } from "../src/execute/index.ts";
import { listenTcp } from "../src/net/index.ts";
import { gradientBuffer } from "../src/program/buffers.ts";
import { evenRanges, planLayout, planLevels } from "../src/program/index.ts";
import { ProgramBuilder } from "../src/program/program.ts";
import { Reducer } from "../src/program/reduce.ts";
import { wholeSpans } from "../src/program/spans.ts";
import { joinSharedMemory, joinTcp, type Transport } from "../src/transport/index.ts";
import { median } from "./report.ts";

/** The request is the same in all revisions, so that two of them can be compared. */
export interface AllReduceRequest {
  readonly transport: "shared-memory" | "tcp";
  readonly name: string;
  readonly rank: number;
  readonly size: number;
  /** The first of `size` free ports. */
  readonly port: number;
  /** The bytes of each case. */
  readonly bytes: readonly number[];
}

export interface AllReduceMeasurement {
  readonly bytes: number;
  /** The median time of one sum, in microseconds. */
  readonly medianUs: number;
  readonly bestUs: number;
}

const request = JSON.parse(process.argv[2] ?? "{}") as AllReduceRequest;
const engine = createOrtEngine({ threads: 1, spin: false });
const group = new Group({ engine, transport: await join(request) });
const results: AllReduceMeasurement[] = [];
for (const bytes of request.bytes) results.push(await measure(bytes));
if (request.rank === 0) console.log(JSON.stringify(results));
await group.close();
await engine.close();

/** Joins a group. Over TCP, rank r listens on the first port plus r. */
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
  const { rank, size, transport } = group;
  const count = bytes / 4;
  const type = { dtype: "float32", shape: [count] } as const;
  const layout = planLayout([{ name: "vector", type, group: "all" }]);
  const program = new ProgramBuilder();
  const ranks = Array.from({ length: size }, (_, peer) => peer);
  program.groups.set("ranks", ranks);
  // Each rank has computed one micro-batch.
  const levels = planLevels(evenRanges(size, size), transport.nodes);
  for (let slot = 0; slot < levels.ranks.slots; slot++) {
    program.shared.add(program.buffer(gradientBuffer(slot), layout.byteLength));
  }
  const names = { all: "ranks", inner: "ranks", outer: "ranks" };
  const reducer = new Reducer(program, { rank, names, levels, bufferOf: gradientBuffer });
  const stages = reducer.stages(wholeSpans(layout), "the vector");
  const instance = await instantiate(engine, program, group);
  const vector = instance.hostTensor({ buffer: gradientBuffer(0), byteOffset: 0, type }).bytes;
  const values = new Float32Array(vector.buffer, vector.byteOffset, count);
  const times: number[] = [];
  const repeats = bytes > 2 ** 24 ? 11 : bytes > 2 ** 20 ? 31 : 3001;
  for (let i = 0; i < repeats + 5; i++) {
    values.fill(1);
    await group.barrier();
    const start = performance.now();
    for (const stage of stages) await instance.run(stage);
    if (i >= 5) times.push(performance.now() - start);
    if (values[0] !== size || values[count - 1] !== size) throw new Error("wrong sum");
  }
  await group.barrier();
  instance.close();
  return { bytes, medianUs: 1000 * median(times), bestUs: 1000 * Math.min(...times) };
}
