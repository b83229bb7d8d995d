/**
 * A barrier made of messages: in round k each rank sends to the rank 2^k further (Hensgen, Finkel
 * and Manber, 1988).
 */
import { type BarrierOptions, type Transport, type WaitOptions, waitForAll } from "./transport.ts";

/** The channel of barriers, which users of a transport must not use. */
export const BARRIER_CHANNEL = 0xffff;

const NOTHING = new Uint8Array(0);

type Messages = Pick<Transport, "rank" | "send" | "receive">;

/** Waits for all ranks, or for those of this node, in log2(ranks) rounds of empty messages. */
export function disseminationBarrier(
  transport: Messages & Pick<Transport, "size" | "nodes">,
  { within, ...options }: BarrierOptions = {},
): Promise<void> {
  const { rank, size, nodes } = transport;
  const everyone = Array.from({ length: size }, (_, peer) => peer);
  const mine = nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
  return barrierAmong(transport, within === "node" ? mine : everyone, options);
}

/** Waits for `members`, which all ranks name in the same order. */
export async function barrierAmong(
  transport: Messages,
  members: readonly number[],
  options: WaitOptions = {},
): Promise<void> {
  const { length } = members;
  const index = members.indexOf(transport.rank);
  const message = { ...options, channel: BARRIER_CHANNEL };
  for (let distance = 1; distance < length; distance *= 2) {
    const before = members[(index - distance + length) % length] as number;
    const after = members[(index + distance) % length] as number;
    await waitForAll([
      () => transport.receive(before, NOTHING, message),
      () => transport.send(after, NOTHING, message),
    ]);
  }
}
