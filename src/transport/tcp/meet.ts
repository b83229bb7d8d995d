/**
 * How a rank connects to its peers: it dials each peer that it receives from, and admits each peer
 * that it sends to.
 */

import type { Admit, TcpListener } from "../../net/index.ts";
import {
  deadlinePassed,
  dialPeer,
  type Fate,
  parseAddress,
  withResolvers,
} from "../../net/index.ts";
import type { Peer } from "./peer.ts";

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
  { token, tls, host, faults }: TcpListener,
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
        welcomed: (link) => {
          peer.addInbound(stream, link);
          faults.add(link);
        },
        ...(/^[\d.]+$|:/.test(host) ? { localAddress: host } : {}),
      });
      dials.push(dialed);
    }
  }
  await Promise.all(dials);
}

/** `admitted` resolves when all streams of all peers have come. */
export function admissions(
  { rank, size, peers, streams, deadlineMs, fate }: Meeting,
  { faults }: TcpListener,
): {
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
    if (hello.size !== size) return `its group has ${size} ranks, not ${hello.size}`;
    if (to !== rank) return `its rank is ${rank}, not ${to}`;
    const peer = peers.get(from);
    if (peer === undefined) return `rank ${from} is not expected`;
    if (stream >= streams) return `it uses ${streams} streams`;
    if (peer.outbound[stream] !== undefined) return `rank ${from} is connected already`;
    peer.addOutbound(stream, link);
    faults.add(link);
    left -= 1;
    if (left === 0) resolve();
    return undefined;
  };
  return { admitted: promise.finally(() => clearTimeout(timer)), admit };
}
