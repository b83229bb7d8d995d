/** A text from one worker to another, of any length up to a bound. Both call together. */
import { LockstepError } from "../errors.ts";
import type { Transport } from "../transport/index.ts";

/** The longest text: far above what is sent. */
const MAX_BYTES = 2 ** 28;

/** Rejects with the group's error. */
export async function sendText(transport: Transport, to: number, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.byteLength);
  await transport.send(to, length);
  await transport.send(to, bytes);
}

/** @throws PROTOCOL for a text that is too long; rejects with the group's error */
export async function receiveText(transport: Transport, from: number): Promise<string> {
  const length = Buffer.alloc(4);
  await transport.receive(from, length);
  const count = length.readUInt32LE();
  if (count > MAX_BYTES) {
    throw new LockstepError("PROTOCOL", `Worker ${from} announces a text of ${count} bytes.`);
  }
  const bytes = Buffer.alloc(count);
  await transport.receive(from, bytes);
  return bytes.toString();
}
