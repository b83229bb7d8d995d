/**
 * Which rank brings which piece of a state to a rank that needs it, and how ranks that have the state
 * tell that to one that has nothing yet.
 */
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";

/** A piece of a tensor, by its bytes. */
export interface Piece {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

/** How a piece comes to a receiver. */
export interface Route extends Piece {
  /** The rank that reads it: of the new group. */
  readonly giver: number;
  /** The rank in whose memory it lies: of the group before. */
  readonly memory: number;
}

/** The length of a message of routes, in front of it: 0 where there are none. */
const LENGTH_BYTES = 4;

/** @param routes undefined where a part of the state is lost */
export async function sendRoutes(
  { transport }: Pick<Group, "transport">,
  peer: number,
  routes: readonly Route[] | undefined,
): Promise<void> {
  const text = routes?.map(({ name, from, to, giver }) => [name, from, to, giver]);
  const bytes = new TextEncoder().encode(text === undefined ? "" : JSON.stringify(text));
  await transport.send(peer, new Uint8Array(Uint32Array.of(bytes.byteLength).buffer));
  if (bytes.byteLength > 0) await transport.send(peer, bytes);
}

/** @throws PEER_LOST when a part of the state is lost */
export async function receiveRoutes({ transport }: Group, teller: number): Promise<Route[]> {
  const length = new Uint8Array(LENGTH_BYTES);
  await transport.receive(teller, length);
  const bytes = new Uint8Array(new Uint32Array(length.buffer)[0] as number);
  if (bytes.byteLength === 0) throw lostState();
  await transport.receive(teller, bytes);
  const rows = JSON.parse(new TextDecoder().decode(bytes)) as [string, number, number, number][];
  return rows.map(([name, from, to, giver]) => ({ name, from, to, giver, memory: giver }));
}

export function lostState(): LockstepError {
  return new LockstepError(
    "PEER_LOST",
    "Lost workers held a part of the state that no other worker can read: neither a worker of their machine nor its buddy on another machine is left.",
    { hint: "Continue from the last checkpoint with --resume." },
  );
}
