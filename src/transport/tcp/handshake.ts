/**
 * What is said before two ends of a stream trust each other, and in which order:
 *
 * - the dialer: `hello` — whom it wants, and its public key;
 * - the listener: `challenge` — its public key;
 * - the dialer: `proof` — that it has the token;
 * - the listener: `proof` — that it has it too; or `refusal`.
 *
 * From then on, both ends seal what they send (`seal.ts`), and the listener lets the dialer in: `welcome`, or `refusal`.
 */
import { timingSafeEqual } from "node:crypto";
import { KEY_BYTES } from "./exchange.ts";

export interface Hello {
  /** The group, one for all ranks of a run. */
  readonly group: string;
  readonly generation: number;
  readonly size: number;
  /** The rank that dials, and the one it wants. */
  readonly from: number;
  readonly to: number;
  readonly stream: number;
}

export interface SignedHello extends Hello {
  /** The dialer's public key, in hexadecimal digits. */
  readonly key: string;
}

export function encodeHello(hello: Hello, publicKey: Uint8Array): Uint8Array {
  return Buffer.from(JSON.stringify({ ...hello, key: Buffer.from(publicKey).toString("hex") }));
}

/** Undefined unless every field is what it must be. */
export function decodeHello(bytes: Uint8Array): SignedHello | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const hello = value as Record<keyof SignedHello, unknown>;
  const numbers = [hello.generation, hello.size, hello.from, hello.to, hello.stream];
  const valid =
    typeof hello.group === "string" &&
    hello.group.length <= 200 &&
    typeof hello.key === "string" &&
    /^[0-9a-f]{64}$/.test(hello.key) &&
    numbers.every((number) => Number.isSafeInteger(number) && (number as number) >= 0);
  return valid ? (value as SignedHello) : undefined;
}

export function sameProof(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === KEY_BYTES && b.byteLength === KEY_BYTES && timingSafeEqual(a, b);
}
