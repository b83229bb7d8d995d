/**
 * The schedule of one rank in one collective: the steps that it takes, in order. Pure functions
 * make schedules, and the runner carries them out. There is one algorithm for each collective;
 * docs/decisions/0022 says why.
 */
import { type Collective, type Part, partsOf } from "./collective.ts";

/** A range of elements in memory. */
export interface Span extends Part {
  /**
   * `data`: the memory that the collective works on. `into`: where an all-to-all puts its result.
   */
  readonly space: "data" | "into";
  /**
   * The rank whose memory is meant; another rank only if its memory is shared. Default: this rank.
   */
  readonly rank?: number;
}

export interface Message {
  readonly peer: number;
  readonly span: Span;
}

export type Step =
  /** Starts all messages at once, and ends when all have ended. */
  | {
      readonly do: "exchange";
      readonly sends: readonly Message[];
      readonly receives: readonly Message[];
    }
  | { readonly do: "copy"; readonly from: Span; readonly to: Span }
  /** Waits until all ranks of this node have reached this step. */
  | { readonly do: "barrier" };

/** The position of one rank in a collective. */
export interface Member {
  readonly rank: number;
  /** The ranks of each node. */
  readonly nodes: readonly (readonly number[])[];
  /** Whether ranks of one node read and write each other's memory in place. */
  readonly shared: boolean;
}

export function scheduleOf(collective: Collective, member: Member): readonly Step[] {
  switch (collective.kind) {
    case "allGather":
      return allGather(member, partsOf(collective.counts));
    case "allToAll":
      return allToAll(
        member.rank,
        partsOf(collective.sendCounts),
        partsOf(collective.receiveCounts),
      );
  }
}

/**
 * Every rank sends its part to one rank of every other node, its deputy there. Then every rank
 * copies the parts of the other ranks of its node, and those that they have received, out of their
 * memory. So each byte crosses the network once for each node, and all ranks of a node share the
 * sending. If memory is not shared, every rank counts as a node.
 */
function allGather({ rank, nodes, shared }: Member, parts: readonly Part[]): Step[] {
  const places = shared ? nodes : parts.map((_, peer) => [peer]);
  const own = nodeOf(places, rank);
  const others = places.filter((node) => node !== own).flat();
  /** The rank of a node that receives the part of `owner`. */
  const deputy = (owner: number, node: readonly number[]) =>
    node[nodeOf(places, owner).indexOf(owner) % node.length] as number;
  const receivedBy = (peer: number) => others.filter((owner) => deputy(owner, own) === peer);
  const targets = places.filter((node) => node !== own).map((node) => deputy(rank, node));
  const span = (owner: number): Span => ({ space: "data", ...(parts[owner] as Part) });
  const messages = exchange(
    inTurn(targets, rank).map((peer) => ({ peer, span: span(rank) })),
    inTurn(receivedBy(rank), rank).map((peer) => ({ peer, span: span(peer) })),
  );
  const neighbours = inTurn(own, rank).filter((peer) => peer !== rank);
  if (neighbours.length === 0) return messages;
  const copies = neighbours.flatMap((peer) =>
    [peer, ...receivedBy(peer)].flatMap((owner) =>
      copy({ ...span(owner), rank: peer }, span(owner)),
    ),
  );
  const barrier: Step = { do: "barrier" };
  // Neighbours may still read this memory until they reach the first barrier, they have what is
  // copied at the second, and they have copied at the last. (Pages of another process that are only
  // read cost a sixteenth of the page faults of those that are written.)
  const sent = others.length === 0 ? [] : [...messages, barrier];
  return [barrier, ...sent, ...copies, barrier];
}

/**
 * Sends from every rank to every other at once. Its own part is copied only if the rank asks for
 * it.
 */
function allToAll(rank: number, sent: readonly Part[], received: readonly Part[]): Step[] {
  const from = (peer: number): Span => ({ space: "data", ...(sent[peer] as Part) });
  const into = (peer: number): Span => ({ space: "into", ...(received[peer] as Part) });
  const ranks = sent.map((_, peer) => peer).filter((peer) => peer !== rank);
  const peers = inTurn(ranks, rank);
  return [
    ...(into(rank).length > 0 ? copy(from(rank), into(rank)) : []),
    ...exchange(
      peers.map((peer) => ({ peer, span: from(peer) })),
      peers.map((peer) => ({ peer, span: into(peer) })),
    ),
  ];
}

function nodeOf(nodes: Member["nodes"], rank: number): readonly number[] {
  return nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
}

/** Puts the ranks after this one first, so that not all ranks send to rank 0 at once. */
function inTurn(ranks: readonly number[], rank: number): number[] {
  return [...ranks.filter((peer) => peer >= rank), ...ranks.filter((peer) => peer < rank)];
}

/** Leaves out empty messages, at the sender and at the receiver alike. */
function exchange(sends: readonly Message[], receives: readonly Message[]): Step[] {
  const full = (list: readonly Message[]) => list.filter(({ span }) => span.length > 0);
  const [out, back] = [full(sends), full(receives)];
  return out.length + back.length === 0 ? [] : [{ do: "exchange", sends: out, receives: back }];
}

function copy(from: Span, to: Span): Step[] {
  return from.length === 0 ? [] : [{ do: "copy", from, to }];
}
