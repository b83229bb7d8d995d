/** A barrier made of messages: in round k each rank greets the one 2^k further. Hensgen, Finkel and Manber, 1988. */
import { type Transport, type WaitOptions, waitForAll } from "./transport.ts";

/** A channel that users of a transport leave alone. */
export const BARRIER_CHANNEL = 0xffff;

const NOTHING = new Uint8Array(0);

/** log2(size) rounds of empty messages. */
export async function disseminationBarrier(
  transport: Pick<Transport, "rank" | "size" | "send" | "receive">,
  options: WaitOptions = {},
): Promise<void> {
  const { rank, size } = transport;
  const message = { ...options, channel: BARRIER_CHANNEL };
  for (let distance = 1; distance < size; distance *= 2) {
    await waitForAll([
      () => transport.receive((rank - distance + size) % size, NOTHING, message),
      () => transport.send((rank + distance) % size, NOTHING, message),
    ]);
  }
}
