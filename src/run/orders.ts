/** What the leader tells the other workers at a save: one message to each. */
import { z } from "zod";
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { receiveText, sendText } from "./tell.ts";

/** What the leader tells each of the others at a save. */
const order = z.strictObject({
  /** A text to look for in the place for checkpoints. Another order follows. */
  mark: z.string().optional(),
  /** Whether parts that other nodes hold go to the leader. */
  collects: z.boolean(),
  /** Whether all wait for each other when they have written. */
  waits: z.boolean(),
  /** What this worker writes, if anything. */
  shard: z
    .strictObject({
      draft: z.string().regex(/^[\w.-]+$/),
      beside: z.boolean(),
      pieces: z.array(z.strictObject({ name: z.string(), from: z.int(), to: z.int() })),
    })
    .optional(),
});
export type Order = z.infer<typeof order>;

/** Does nothing without a group. */
export async function tellOthers(group: Group | undefined, orderOf: (rank: number) => Order) {
  if (group === undefined) return;
  for (let rank = 0; rank < group.size; rank++) {
    if (rank === group.rank) continue;
    await sendText(group.transport, rank, JSON.stringify(orderOf(rank)));
  }
}

export async function receiveOrder({ transport }: Group): Promise<Order> {
  return read(await receiveText(transport, 0));
}

function read(text: string): Order {
  try {
    return order.parse(JSON.parse(text));
  } catch (cause) {
    throw notUnderstood(cause);
  }
}

export function notUnderstood(cause?: unknown): LockstepError {
  const text = "The first worker sent an order to save that cannot be understood.";
  return new LockstepError("PROTOCOL", text, { cause });
}
