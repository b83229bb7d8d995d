/**
 * Measures what messages between nodes cost, on all ranks together, in some tens of milliseconds.
 */
import { type Transport, waitForAll } from "../transport/index.ts";

/** The costs of messages between nodes. The size of gradient buckets follows from them. */
export interface LinkCosts {
  /** Microseconds that a message without content takes. */
  readonly messageUs: number;
  /** Microseconds per byte that a rank sends, while all ranks of its node do the same. */
  readonly wireUsPerByte: number;
}

/** The costs of a local network, which are used when nothing was measured. */
export const DEFAULT_COSTS: LinkCosts = { messageUs: 60, wireUsPerByte: 1 / 2000 };

/** The size of the large message that is timed. */
const LARGE_BYTES = 2 ** 20;
const SMALL_BYTES = 8;
const WARM_ROUNDS = 5;

/**
 * Times messages that every rank sends to a rank of the next node. It takes the lower quartile of a
 * few rounds, and then the largest value of all ranks, so that every rank gets the same result. All
 * ranks call it together. With one node, nothing is measured. Rejects with the group's error.
 */
export async function measureCosts(transport: Transport): Promise<LinkCosts> {
  if (transport.nodes.length === 1) return DEFAULT_COSTS;
  const messageUs = await lowerQuartileUs(20, ringOfNodes(transport, SMALL_BYTES));
  const largeUs = await lowerQuartileUs(6, ringOfNodes(transport, LARGE_BYTES));
  const wireUsPerByte = Math.max(1e-6, (largeUs - messageUs) / LARGE_BYTES);
  const [message = 0, wire = 0] = await largestOf(transport, [messageUs, wireUsPerByte]);
  return { messageUs: message, wireUsPerByte: wire };
}

/**
 * Every rank sends to the rank with the same place on the next node; if that node has fewer ranks,
 * places wrap around.
 */
function ringOfNodes(transport: Transport, byteLength: number): () => Promise<void> {
  const { rank, nodes } = transport;
  const pairs = nodes.flatMap((ranks, node) => {
    const next = nodes[(node + 1) % nodes.length] ?? [];
    return ranks.map((from, place) => ({ from, to: next[place % next.length] as number }));
  });
  const out = new Uint8Array(byteLength);
  const starts = pairs.flatMap(({ from, to }) => {
    const back = new Uint8Array(to === rank ? byteLength : 0);
    if (to === rank) return [() => transport.receive(from, back)];
    return from === rank ? [() => transport.send(to, out)] : [];
  });
  return async () => {
    await waitForAll(starts);
  };
}

async function largestOf(transport: Transport, own: readonly number[]): Promise<number[]> {
  const all = await tellNumbers(transport, own);
  return own.map((_, index) => Math.max(...all.map((values) => values[index] as number)));
}

/**
 * Every rank tells all others equally many numbers. All ranks call it together.
 * @returns those of each rank, by rank
 */
export async function tellNumbers(
  transport: Transport,
  own: readonly number[],
): Promise<readonly (readonly number[])[]> {
  const { rank, size } = transport;
  const bytesOf = ({ buffer }: Float64Array) => new Uint8Array(buffer);
  const mine = Float64Array.from(own);
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
  return all.map((values) => [...values]);
}

async function lowerQuartileUs(rounds: number, body: () => Promise<void>): Promise<number> {
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
