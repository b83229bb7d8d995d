/**
 * How two ends of a stream make sure of each other: both prove that they know the run's token, by HMAC over fresh
 * random numbers of both. The token itself never travels.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

export interface Hello {
  /** The group, one for all ranks of a run. */
  readonly group: string;
  readonly generation: number;
  readonly size: number;
  /** The rank that dials, and the one it wants. */
  readonly from: number;
  readonly to: number;
  readonly stream: number;
  readonly nonce: string;
}

export const NONCE_BYTES = 32;
const PROOF_BYTES = 32;

export function newNonce(): string {
  return randomBytes(NONCE_BYTES).toString("hex");
}

export function encodeHello(hello: Hello): Uint8Array {
  return Buffer.from(JSON.stringify(hello));
}

/** Undefined unless every field is what it must be. */
export function decodeHello(bytes: Uint8Array): Hello | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const hello = value as Record<keyof Hello, unknown>;
  const numbers = [hello.generation, hello.size, hello.from, hello.to, hello.stream];
  const valid =
    typeof hello.group === "string" &&
    hello.group.length <= 200 &&
    typeof hello.nonce === "string" &&
    /^[0-9a-f]{64}$/.test(hello.nonce) &&
    numbers.every((number) => Number.isSafeInteger(number) && (number as number) >= 0);
  return valid ? (value as Hello) : undefined;
}

/** What one end sends to show that it knows the token. */
export function proofOf(
  token: string,
  side: "dialer" | "listener",
  hello: Uint8Array,
  listenerNonce: Uint8Array,
): Uint8Array {
  const key = createHmac("sha256", "lockstep tcp 1").update(token).digest();
  return createHmac("sha256", key).update(`${side}\n`).update(listenerNonce).update(hello).digest();
}

export function sameProof(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === PROOF_BYTES && b.byteLength === PROOF_BYTES && timingSafeEqual(a, b);
}

/** The key of TLS without certificates. */
export function sharedKey(token: string): Buffer {
  return createHmac("sha256", "lockstep tls 1").update(token).digest();
}
