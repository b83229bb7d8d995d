/** Collectives that reduce to parts or only move: reduce-scatter, all-gather, broadcast, all-to-all, send and receive. */
import { directAllGatherSteps, directReduceScatterSteps, others } from "./all-reduce.ts";
import {
  dataSpan,
  exchange,
  type Message,
  type Part,
  reduceAll,
  type Schedule,
  type Span,
  type Step,
} from "./schedule.ts";

const BARRIER: Step = { do: "barrier" };

export function sharedReduceScatter(rank: number, parts: readonly Part[]): Schedule {
  const mine = parts[rank] as Part;
  const everyone = parts.map((_, other) => dataSpan(mine, other));
  return {
    algorithm: "shared",
    steps: [BARRIER, ...reduceAll(everyone, [dataSpan(mine)]), BARRIER],
    scratch: 0,
  };
}

export function directReduceScatter(rank: number, parts: readonly Part[]): Schedule {
  const scratch = (parts.length - 1) * (parts[rank] as Part).length;
  return { algorithm: "direct", steps: directReduceScatterSteps(rank, parts), scratch };
}

/** Each rank writes its part to all. */
export function sharedAllGather(rank: number, parts: readonly Part[]): Schedule {
  const mine = parts[rank] as Part;
  const to = others(rank, parts.length).map((peer) => dataSpan(mine, peer));
  return {
    algorithm: "shared",
    steps: [BARRIER, ...copy(dataSpan(mine), to), BARRIER],
    scratch: 0,
  };
}

export function directAllGather(rank: number, parts: readonly Part[]): Schedule {
  return { algorithm: "direct", steps: directAllGatherSteps(rank, parts), scratch: 0 };
}

/** Each rank reads what the root has. */
export function sharedBroadcast(rank: number, count: number, root: number): Schedule {
  const whole = { start: 0, length: count };
  const steps = rank === root ? [] : copy(dataSpan(whole, root), [dataSpan(whole)]);
  return { algorithm: "shared", steps: [BARRIER, ...steps, BARRIER], scratch: 0 };
}

export function directBroadcast(rank: number, size: number, count: number, root: number): Schedule {
  const span = dataSpan({ start: 0, length: count });
  const steps =
    rank === root
      ? exchange(
          others(rank, size).map((peer) => ({ peer, span })),
          [],
        )
      : exchange([], [{ peer: root, span }]);
  return { algorithm: "direct", steps, scratch: 0 };
}

/** A binomial tree from the root: log2(size) rounds. */
export function treeBroadcast(rank: number, size: number, count: number, root: number): Schedule {
  const span = dataSpan({ start: 0, length: count });
  const place = (rank - root + size) % size;
  const peer = (other: number): Message[] => [{ peer: (other + root) % size, span }];
  const sends: Step[][] = [];
  const receives: Step[] = [];
  for (let distance = 1; distance < size; distance *= 2) {
    if ((place & distance) !== 0) {
      receives.push(...exchange([], peer(place - distance)));
      break;
    }
    if (place + distance < size) sends.push(exchange(peer(place + distance), []));
  }
  return { algorithm: "tree", steps: [...receives, ...sends.toReversed().flat()], scratch: 0 };
}

export interface AllToAllParts {
  /** What this rank gives to each, in `data`. */
  readonly given: readonly Part[];
  /** What it takes from each, in `into`. */
  readonly taken: readonly Part[];
}

export function directAllToAll(rank: number, { given, taken }: AllToAllParts): Schedule {
  const peers = others(rank, given.length);
  return {
    algorithm: "direct",
    steps: [
      ...copy(dataSpan(given[rank] as Part), [intoSpan(taken[rank] as Part)]),
      ...exchange(
        peers.map((peer) => ({ peer, span: dataSpan(given[peer] as Part) })),
        peers.map((peer) => ({ peer, span: intoSpan(taken[peer] as Part) })),
      ),
    ],
    scratch: 0,
  };
}

/** One peer a round: less at once for the network and for memory. */
export function pairwiseAllToAll(rank: number, { given, taken }: AllToAllParts): Schedule {
  const size = given.length;
  const steps = copy(dataSpan(given[rank] as Part), [intoSpan(taken[rank] as Part)]);
  for (let distance = 1; distance < size; distance++) {
    const [to, from] = [(rank + distance) % size, (rank - distance + size) % size];
    steps.push(
      ...exchange(
        [{ peer: to, span: dataSpan(given[to] as Part) }],
        [{ peer: from, span: intoSpan(taken[from] as Part) }],
      ),
    );
  }
  return { algorithm: "pairwise", steps, scratch: 0 };
}

export function sendSchedule(peer: number, count: number): Schedule {
  const span = dataSpan({ start: 0, length: count });
  return { algorithm: "message", steps: exchange([{ peer, span }], []), scratch: 0 };
}

export function receiveSchedule(peer: number, count: number): Schedule {
  const span = dataSpan({ start: 0, length: count });
  return { algorithm: "message", steps: exchange([], [{ peer, span }]), scratch: 0 };
}

function intoSpan({ start, length }: Part): Span {
  return { space: "into", start, length };
}

function copy(from: Span, to: readonly Span[]): Step[] {
  return from.length === 0 || to.length === 0 ? [] : [{ do: "copy", from, to }];
}
