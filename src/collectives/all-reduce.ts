/** All-reduce: every rank gets the combination of what all have. One function an algorithm, each from (rank, size, count) to steps. */

import { ringAllGather, ringReduceScatter } from "./ring.ts";
import {
  dataSpan,
  evenParts,
  exchange,
  type Part,
  reduce,
  reduceAll,
  type Schedule,
  type Span,
  type Step,
  scratchSpan,
} from "./schedule.ts";

/** Peers' memory is read and written in place: each rank combines its part and writes it to all. */
export function sharedAllReduce(rank: number, size: number, count: number): Schedule {
  const part = evenParts(count, size)[rank] as Part;
  const everyone = Array.from({ length: size }, (_, other) => dataSpan(part, other));
  const mineFirst = [dataSpan(part, rank), ...everyone.filter((span) => span.rank !== rank)];
  const barrier: Step = { do: "barrier" };
  return {
    algorithm: "shared",
    steps: [barrier, ...reduceAll(everyone, mineFirst), barrier],
    scratch: 0,
  };
}

/**
 * Everyone shows a copy and combines what all show: one barrier, for small messages. The next run uses other memory, and who
 * has met the others in it has read all of this one: so nobody waits for readers.
 */
export function stagedAllReduce(rank: number, size: number, count: number): Schedule {
  const whole = { start: 0, length: count };
  const staged = (peer: number): Span => ({ space: "staging", rank: peer, ...whole });
  const copy: Step[] =
    count === 0 ? [] : [{ do: "copy", from: dataSpan(whole), to: [staged(rank)] }];
  const everyone = Array.from({ length: size }, (_, peer) => staged(peer));
  return {
    algorithm: "staged",
    steps: [...copy, { do: "barrier" }, ...reduceAll(everyone, [dataSpan(whole)])],
    scratch: 0,
    staging: count,
  };
}

/** Everyone sends all of it to everyone, and combines: one round, for small messages. */
export function directAllReduce(rank: number, size: number, count: number): Schedule {
  const whole = { start: 0, length: count };
  const peers = others(rank, size);
  const inputs = Array.from({ length: size }, (_, peer) =>
    peer === rank ? dataSpan(whole) : scratchSpan(slot(peer, rank) * count, count),
  );
  return {
    algorithm: "direct",
    steps: [
      ...exchange(
        peers.map((peer) => ({ peer, span: dataSpan(whole) })),
        peers.map((peer) => ({ peer, span: inputs[peer] as (typeof inputs)[number] })),
      ),
      ...reduceAll(inputs, [dataSpan(whole)]),
    ],
    scratch: (size - 1) * count,
  };
}

/** Part p goes to rank p, which combines it and sends it to all: two rounds, no byte twice. */
export function scatterAllReduce(rank: number, size: number, count: number): Schedule {
  const parts = evenParts(count, size);
  const mine = parts[rank] as Part;
  return {
    algorithm: "scatter",
    steps: [...directReduceScatterSteps(rank, parts), ...directAllGatherSteps(rank, parts)],
    scratch: (size - 1) * mine.length,
  };
}

/** Patarasuk and Yuan, 2009: 2 (size - 1) rounds, each rank talks to its neighbours only. */
export function ringAllReduce(rank: number, size: number, count: number): Schedule {
  const parts = evenParts(count, size);
  const scatter = ringReduceScatter(rank, parts);
  return {
    algorithm: "ring",
    steps: [...scatter.steps, ...ringAllGather(rank, parts).steps],
    scratch: scatter.scratch,
  };
}

/** A binomial tree to rank 0 and back: 2 log2(size) rounds of the whole, for small messages of many ranks. */
export function treeAllReduce(rank: number, size: number, count: number): Schedule {
  const whole = dataSpan({ start: 0, length: count });
  const received = scratchSpan(0, count);
  const up: Step[] = [];
  const down: Step[][] = [];
  for (let distance = 1; distance < size; distance *= 2) {
    const isSender = (rank & distance) !== 0;
    const peer = isSender ? rank - distance : rank + distance;
    if (peer >= size) continue;
    const message = [{ peer, span: whole }];
    if (isSender) {
      up.push(...exchange(message, []));
      down.push(exchange([], message));
      break;
    }
    const last = distance * 2 >= size;
    up.push(
      ...exchange([], [{ peer, span: received }]),
      ...reduce([whole, received], [whole], last),
    );
    down.push(exchange(message, []));
  }
  return { algorithm: "tree", steps: [...up, ...down.toReversed().flat()], scratch: count };
}

/**
 * Recursive halving, then doubling: 2 log2(size) rounds, no byte twice. Thakur, Rabenseifner and Gropp, 2005. Where
 * size is no power of two, the first ranks work in pairs: one lends its data to the other and gets the result.
 */
export function halvingAllReduce(rank: number, size: number, count: number): Schedule {
  const power = 2 ** Math.floor(Math.log2(size));
  const pairs = size - power;
  const whole = { start: 0, length: count };
  const inPair = rank < 2 * pairs;
  const message = [{ peer: rank ^ 1, span: dataSpan(whole) }];
  if (inPair && rank % 2 === 1) {
    return {
      algorithm: "halving",
      steps: [...exchange(message, []), ...exchange([], message)],
      scratch: 0,
    };
  }
  const scratch = scratchSpan(0, count);
  const before = inPair
    ? [
        ...exchange([], [{ peer: rank + 1, span: scratch }]),
        ...reduce([dataSpan(whole), scratch], [dataSpan(whole)], power === 1),
      ]
    : [];
  const steps = halvingSteps(inPair ? rank / 2 : rank - pairs, power, count, (index) =>
    index < pairs ? 2 * index : index + pairs,
  );
  return {
    algorithm: "halving",
    steps: [...before, ...steps, ...(inPair ? exchange(message, []) : [])],
    scratch: count,
  };
}

function halvingSteps(
  index: number,
  power: number,
  count: number,
  rankOf: (index: number) => number,
): Step[] {
  const parts = evenParts(count, power);
  const spanOf = (first: number, length: number): Part => {
    const [start, end] = [parts[first] as Part, parts[first + length - 1] as Part];
    return { start: start.start, length: end.start + end.length - start.start };
  };
  const halve: Step[] = [];
  const double: Step[][] = [];
  for (let half = power / 2; half >= 1; half /= 2) {
    const peer = rankOf(index ^ half);
    const base = index - (index % (2 * half));
    const upper = (index & half) !== 0;
    const kept = spanOf(upper ? base + half : base, half);
    const given = spanOf(upper ? base : base + half, half);
    const [mine, theirs] = [dataSpan(kept), scratchSpan(0, kept.length)];
    const inputs = upper ? [theirs, mine] : [mine, theirs];
    halve.push(
      ...exchange([{ peer, span: dataSpan(given) }], [{ peer, span: theirs }]),
      ...reduce(inputs, [mine], half === 1),
    );
    double.push(exchange([{ peer, span: mine }], [{ peer, span: dataSpan(given) }]));
  }
  return [...halve, ...double.toReversed().flat()];
}

/** Each rank sends part p to rank p, which combines. Scratch holds the others' versions of one's own part. */
export function directReduceScatterSteps(rank: number, parts: readonly Part[]): Step[] {
  const mine = parts[rank] as Part;
  const peers = others(rank, parts.length);
  const inputs = parts.map((_, peer) =>
    peer === rank ? dataSpan(mine) : scratchSpan(slot(peer, rank) * mine.length, mine.length),
  );
  return [
    ...exchange(
      peers.map((peer) => ({ peer, span: dataSpan(parts[peer] as Part) })),
      peers.map((peer) => ({ peer, span: inputs[peer] as (typeof inputs)[number] })),
    ),
    ...reduceAll(inputs, [dataSpan(mine)]),
  ];
}

/** Each rank sends its part to all. */
export function directAllGatherSteps(rank: number, parts: readonly Part[]): Step[] {
  const peers = others(rank, parts.length);
  return exchange(
    peers.map((peer) => ({ peer, span: dataSpan(parts[rank] as Part) })),
    peers.map((peer) => ({ peer, span: dataSpan(parts[peer] as Part) })),
  );
}

/** The other ranks, the next one first: so not all of them turn to rank 0 at once. */
export function others(rank: number, size: number): number[] {
  return Array.from({ length: size - 1 }, (_, index) => (rank + 1 + index) % size);
}

function slot(peer: number, rank: number): number {
  return peer < rank ? peer : peer - 1;
}
