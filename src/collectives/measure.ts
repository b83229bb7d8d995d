/** Measures what the cost model wants to know, on all ranks together, in some tens of milliseconds. */
import { waitForAll } from "../transport/index.ts";
import type { CostModel } from "./cost.ts";
import type { Group } from "./group.ts";
import { reductionGraph } from "./reduction.ts";

const BYTES = 2 ** 20;
const WARM_ROUNDS = 5;
const RUN_ELEMENTS = 2 ** 16;

/**
 * The lower quartile of a few rounds; of each number the worst rank's counts, so that all ranks get the same model. All ranks
 * call it together.
 */
export async function measureCosts(group: Group): Promise<CostModel> {
  const { transport, rank, size } = group;
  const { messageUs, wireUsPerByte } = await measureMessages(group);
  const barrierUs = await typical(20, async () => {
    await transport.barrier();
  });
  const [from, to] = [new Uint8Array(BYTES), new Uint8Array(BYTES)];
  const copyUs = await typical(5, () => Promise.resolve(to.set(from)));
  const { runUs, reduceUsPerByte } = await measureReduction(group);
  const mine = Float64Array.of(
    messageUs,
    wireUsPerByte,
    barrierUs,
    runUs,
    reduceUsPerByte,
    copyUs / BYTES,
  );
  const all = Array.from({ length: size }, () => new Float64Array(mine.length));
  await waitForAll(
    all.flatMap((values, peer) =>
      peer === rank
        ? []
        : [
            () => transport.receive(peer, bytesOf(values)),
            () => transport.send(peer, bytesOf(mine)),
          ],
    ),
  );
  all[rank] = mine;
  const worst = (index: number) => Math.max(...all.map((values) => values[index] as number));
  return {
    messageUs: worst(0),
    wireUsPerByte: worst(1),
    barrierUs: worst(2),
    runUs: worst(3),
    reduceUsPerByte: worst(4),
    copyUsPerByte: worst(5),
  };
}

/** Each rank sends to the next and receives from the one before, as a ring does. */
async function measureMessages({
  transport,
  rank,
  size,
}: Group): Promise<Pick<CostModel, "messageUs" | "wireUsPerByte">> {
  if (size === 1) return { messageUs: 0, wireUsPerByte: Number.EPSILON };
  const [next, before] = [(rank + 1) % size, (rank - 1 + size) % size];
  const shift = (length: number) => {
    const [out, back] = [new Uint8Array(length), new Uint8Array(length)];
    return async () => {
      await waitForAll([() => transport.receive(before, back), () => transport.send(next, out)]);
    };
  };
  const messageUs = await typical(20, shift(8));
  const bigUs = await typical(6, shift(BYTES));
  return { messageUs, wireUsPerByte: Math.max(1e-6, (bigUs - messageUs) / BYTES) };
}

async function measureReduction({
  engine,
}: Group): Promise<Pick<CostModel, "runUs" | "reduceUsPerByte">> {
  const time = async (length: number): Promise<number> => {
    const graph = reductionGraph({
      dtype: "float32",
      length,
      reduction: "sum",
      inputs: 2,
      combination: [0, 1],
    });
    const executable = await engine.compile(graph, { threads: 1 });
    const buffer = engine.allocate(8 * length);
    const type = { dtype: "float32", shape: [length] } as const;
    const [a, b] = [buffer.tensor(type), buffer.tensor(type, 4 * length)];
    const binding = executable.bind({
      inputs: { x0: a, x1: b },
      outputs: { [graph.outputs[0] as string]: a },
    });
    try {
      return await typical(20, () => Promise.resolve(binding.runSync()));
    } finally {
      binding.close();
      executable.close();
      buffer.close();
    }
  };
  const [small, big] = [await time(16), await time(RUN_ELEMENTS)];
  return { runUs: small, reduceUsPerByte: Math.max(1e-7, (big - small) / (8 * RUN_ELEMENTS)) };
}

async function typical(rounds: number, body: () => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < WARM_ROUNDS; round++) await body();
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    await body();
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  return 1000 * (times[rounds >> 2] as number);
}

function bytesOf(values: Float64Array): Uint8Array {
  return new Uint8Array(values.buffer);
}
