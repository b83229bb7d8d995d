/** How a rank meets its peers: it dials each for what it is to receive, and lets each in for what it is to send. */

import type { Admit, TcpListener } from "../../net/index.ts";
import { deadlinePassed, dialPeer, type Fate, parseAddress } from "../../net/index.ts";
import type { Peer } from "./peer.ts";
import { withResolvers } from "./resolvers.ts";

export interface Meeting {
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly group: string;
  readonly peers: ReadonlyMap<number, Peer>;
  readonly streams: number;
  readonly deadlineMs: number;
  readonly reachMs: number | undefined;
  readonly fate: Fate;
}

export async function dialAll(
  { rank, size, generation, group, peers, streams, deadlineMs, reachMs, fate }: Meeting,
  { token, tls, host }: TcpListener,
  addresses: readonly string[],
): Promise<void> {
  const dials: Promise<void>[] = [];
  for (const [to, peer] of peers) {
    const address = parseAddress(addresses[to] ?? "");
    for (let stream = 0; stream < streams; stream++) {
      const hello = { group, generation, size, from: rank, to, stream };
      const dialed = dialPeer({
        address,
        token,
        tls,
        hello,
        deadlineMs,
        ...(reachMs === undefined ? {} : { reachMs }),
        signal: fate.signal,
        welcomed: (link) => peer.addInbound(stream, link),
        ...(/^[\d.]+$|:/.test(host) ? { localAddress: host } : {}),
      });
      dials.push(dialed);
    }
  }
  await Promise.all(dials);
}

/** `admitted` is fulfilled when all streams of all peers have come. */
export function admissions({ rank, size, peers, streams, deadlineMs, fate }: Meeting): {
  readonly admitted: Promise<void>;
  readonly admit: Admit;
} {
  let left = peers.size * streams;
  const { promise, resolve, reject } = withResolvers();
  fate.onFail(reject);
  const timer = setTimeout(() => {
    const isMissing = ({ outbound }: Peer) => Object.keys(outbound).length < streams;
    const missing = [...peers].find(([, peer]) => isMissing(peer));
    reject(deadlinePassed(missing?.[0] ?? -1, "waiting for its connection", deadlineMs));
  }, deadlineMs);
  if (left === 0) resolve();
  const admit: Admit = (hello, link) => {
    const { from, to, stream } = hello;
    if (hello.size !== size) return `it is a group of ${size} ranks, not of ${hello.size}`;
    if (to !== rank) return `it is rank ${rank}, not ${to}`;
    const peer = peers.get(from);
    if (peer === undefined) return `there is no rank ${from} to be let in`;
    if (stream >= streams) return `it uses ${streams} streams`;
    if (peer.outbound[stream] !== undefined) return `rank ${from} is here already`;
    peer.addOutbound(stream, link);
    left -= 1;
    if (left === 0) resolve();
    return undefined;
  };
  return { admitted: promise.finally(() => clearTimeout(timer)), admit };
}
