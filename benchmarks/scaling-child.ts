/**
 * One worker that measures whole training steps of a GPT, alone or with others, and prints one JSON
 * object.
 */
import { Group, measureCosts } from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { listenTcp, parseAddress } from "../src/net/index.ts";
import { createTrainer, type TrainerOptions } from "../src/train/index.ts";
import { joinSharedMemory, joinTcp } from "../src/transport/index.ts";
import type { GptSizes } from "./peers.ts";
import { median } from "./report.ts";
import { timeSteps, trainedGpt } from "./steps.ts";

export interface ScalingRequest {
  readonly sizes: GptSizes;
  readonly microBatches: number;
  readonly threads: number;
  readonly repeats: number;
  /** Steps before those that are measured. Default: 2. */
  readonly warm?: number;
  readonly reproducible?: boolean;
  readonly bucketBytes?: number;
  /** How workers share a step. Default: as they choose. */
  readonly parallel?: TrainerOptions["parallel"];
  readonly timetable?: TrainerOptions["timetable"];
  /**
   * The group of the worker: over TCP if it has addresses, else over shared memory. Undefined for a
   * worker alone.
   */
  readonly group?: {
    readonly name: string;
    readonly rank: number;
    readonly size: number;
    readonly addresses?: readonly string[];
  };
}

export interface ScalingMeasurement {
  /** The median seconds of one step of the whole batch. */
  readonly seconds: number;
  /**
   * The part of the time of all steps that passes in collectives and in waits for other stages.
   * Collectives include waits for slower workers, and no sums.
   */
  readonly waiting: number;
}

console.log(JSON.stringify(await measure(JSON.parse(process.argv[2] ?? "{}") as ScalingRequest)));

async function measure(request: ScalingRequest): Promise<ScalingMeasurement> {
  const { sizes, microBatches, threads, repeats, warm = 2 } = request;
  const { reproducible, bucketBytes, parallel, timetable } = request;
  const engine = createOrtEngine({ threads });
  const clock = { milliseconds: 0 };
  const group = request.group && timed(await join(engine, request.group), clock);
  const trainer = await createTrainer({
    engine,
    ...trainedGpt(sizes, microBatches),
    ranks: group && { group },
    reproducible,
    bucketBytes,
    parallel,
    timetable,
  });
  await timeSteps(trainer, sizes, warm);
  clock.milliseconds = 0;
  const times = await timeSteps(trainer, sizes, repeats);
  const total = times.reduce((sum, time) => sum + time, 0);
  const waiting = clock.milliseconds / 1000 / total;
  trainer.close();
  await group?.close();
  await engine.close();
  return { seconds: median(times), waiting };
}

async function join(
  engine: ReturnType<typeof createOrtEngine>,
  options: NonNullable<ScalingRequest["group"]>,
): Promise<Group> {
  const { name, rank, size, addresses } = options;
  if (addresses === undefined) {
    return new Group({ engine, transport: await joinSharedMemory({ name, rank, size }) });
  }
  const { host, port } = parseAddress(addresses[rank] ?? "");
  const listener = await listenTcp({ host, port, token: `${name} of a benchmark` });
  const group = new Group({
    engine,
    transport: await joinTcp({ listener, addresses, rank, size }),
  });
  listener.close();
  group.costs = await measureCosts(group.transport);
  return group;
}

/** Returns the same group, whose collectives add to the clock. */
function timed(group: Group, clock: { milliseconds: number }): Group {
  const measured = (body: () => Promise<void>) => async () => {
    const start = performance.now();
    await body();
    clock.milliseconds += performance.now() - start;
  };
  const prepare = group.prepare.bind(group);
  const [barrier, signal] = [group.barrier.bind(group), group.signal.bind(group)];
  group.barrier = measured(barrier);
  group.signal = (tells, awaits) => measured(() => signal(tells, awaits))();
  group.prepare = (...given) => {
    const prepared = prepare(...given);
    return { ...prepared, run: measured(() => prepared.run()) };
  };
  return group;
}
