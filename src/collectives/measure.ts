/** Measures what the cost model wants to know, on all ranks together, in some tens of milliseconds. */
import { type BarrierOptions, type Transport, waitForAll } from "../transport/index.ts";
import type { CostModel, LinkCosts } from "./cost.ts";
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
  const { transport } = group;
  const within = await measureLink(transport, neighboursWithin(transport), { within: "machine" });
  const between = await measureLink(transport, neighboursBetween(transport), {});
  const [from, to] = [new Uint8Array(BYTES), new Uint8Array(BYTES)];
  const copyUs = await typical(5, () => Promise.resolve(to.set(from)));
  const { runUs, reduceUsPerByte } = await measureReduction(group);
  const mine = [
    runUs,
    reduceUsPerByte,
    copyUs / BYTES,
    ...numbersOf(within),
    ...numbersOf(between),
  ];
  const worst = await worstOf(transport, Float64Array.from(mine));
  const [run = 0, reduce = 0, copy = 0, ...links] = worst;
  const [near, far] = [linkOf(links.slice(0, 3)), linkOf(links.slice(3))];
  const { length: machines } = transport.machines;
  return {
    // Where there is nothing to measure, it does not matter.
    within: machines === group.size ? far : near,
    between: machines === 1 ? near : far,
    runUs: run,
    reduceUsPerByte: reduce,
    copyUsPerByte: copy,
  };
}

function numbersOf({ messageUs, wireUsPerByte, barrierUs }: LinkCosts): number[] {
  return [messageUs, wireUsPerByte, barrierUs];
}

function linkOf([messageUs = 0, wireUsPerByte = 0, barrierUs = 0]: readonly number[]): LinkCosts {
  return { messageUs, wireUsPerByte, barrierUs };
}

async function worstOf(transport: Transport, mine: Float64Array): Promise<readonly number[]> {
  const { rank, size } = transport;
  const all = Array.from({ length: size }, (_, peer) =>
    peer === rank ? mine : new Float64Array(mine.length),
  );
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
  return Array.from(mine, (_, index) => Math.max(...all.map((values) => values[index] as number)));
}

/** To whom a rank sends, and from whom it receives. */
interface Neighbours {
  readonly next: readonly number[];
  readonly before: readonly number[];
}

/** A ring in each machine. */
function neighboursWithin({ rank, machines }: Transport): Neighbours {
  const mine = machines.find((ranks) => ranks.includes(rank)) ?? [rank];
  const { length } = mine;
  if (length === 1) return { next: [], before: [] };
  const index = mine.indexOf(rank);
  const at = (place: number) => mine.slice(place % length, (place % length) + 1);
  return { next: at(index + 1), before: at(index + length - 1) };
}

/** A ring of machines for each place in them, all at once: they share what leads out. */
function neighboursBetween({ rank, machines }: Transport): Neighbours {
  const { length } = machines;
  if (length === 1) return { next: [], before: [] };
  const nextOf = (machine: number, index: number) => {
    const ranks = machines[(machine + 1) % length] ?? [];
    return ranks[index % ranks.length];
  };
  const pairs = machines.flatMap((ranks, machine) =>
    ranks.map((from, index) => ({ from, to: nextOf(machine, index) as number })),
  );
  return {
    next: pairs.filter(({ from }) => from === rank).map(({ to }) => to),
    before: pairs.filter(({ to }) => to === rank).map(({ from }) => from),
  };
}

async function measureLink(
  transport: Transport,
  { next, before }: Neighbours,
  barrier: BarrierOptions,
): Promise<LinkCosts> {
  const shift = (length: number) => {
    const out = new Uint8Array(length);
    const starts = [
      ...before.map((peer) => {
        const back = new Uint8Array(length);
        return () => transport.receive(peer, back);
      }),
      ...next.map((peer) => () => transport.send(peer, out)),
    ];
    return async () => {
      await waitForAll(starts);
    };
  };
  const messageUs = await typical(20, shift(8));
  const bigUs = await typical(6, shift(BYTES));
  const barrierUs = await typical(20, async () => {
    await transport.barrier(barrier);
  });
  return { messageUs, wireUsPerByte: Math.max(1e-6, (bigUs - messageUs) / BYTES), barrierUs };
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
    const buffer = engine.allocateHost(8 * length);
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
