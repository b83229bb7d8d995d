/**
 * Derives keys from a password: CPace (draft-irtf-cfrg-cpace) over ristretto255 and SHA-512. Two
 * ends that know the same token get the same keys. An end that does not know it learns only that
 * one guess was wrong, and nothing to test further guesses on, whether it dialed, was dialed or
 * only listened. This file knows no socket.
 */
import { createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";
import { ristretto255, ristretto255_hasher } from "@noble/curves/ed25519.js";
import { assert } from "../errors.ts";

type Point = InstanceType<typeof ristretto255.Point>;

export type Side = "dialer" | "listener";

/** What one end sends about itself: a point, and cleartext that both ends must have seen alike. */
export interface Share {
  /** The encoded point, 32 bytes. */
  readonly point: Uint8Array;
  readonly said: Uint8Array;
}

/** Keys of 32 bytes each. They differ in each connection and direction. */
export interface SessionKeys {
  /** What each end sends to prove that it has the keys. The dialer sends first. */
  readonly proofs: Readonly<Record<Side, Uint8Array>>;
  /** The key that seals the frames of each end. */
  readonly frames: Readonly<Record<Side, Uint8Array>>;
  /** The key for TLS over the same connection. */
  readonly tls: Uint8Array;
}

export const POINT_BYTES = 32;
const KEY_BYTES = 32;
const HASH_BLOCK_BYTES = 128; // the block size of SHA-512
const GENERATOR = Buffer.from("CPaceRistretto255");
const SESSION = Buffer.from("CPaceRistretto255_ISK");
/** The channel identifier of the draft: this protocol and its version. */
const CHANNEL = Buffer.from("lockstep tcp 2");
const NOTHING = Buffer.alloc(0);

export class Exchange {
  readonly #side: Side;
  readonly #own: Share;
  readonly #scalar: bigint;

  constructor(side: Side, token: string, said: Uint8Array) {
    this.#side = side;
    const { Fn } = ristretto255.Point;
    // Twice as many random bytes as the order has: the remainder is uniform up to 2^-256.
    this.#scalar = (BigInt(`0x${randomBytes(64).toString("hex")}`) % (Fn.ORDER - 1n)) + 1n;
    this.#own = { point: generatorOf(token).multiply(this.#scalar).toBytes(), said };
  }

  /** What is sent to the other end. */
  get share(): Share {
    return this.#own;
  }

  /**
   * Returns the keys, or undefined for a share that no honest end sends: not a point, the neutral
   * one, or our own.
   */
  finish(theirs: Share): SessionKeys | undefined {
    if (Buffer.compare(theirs.point, this.#own.point) === 0) return undefined;
    let secret: Uint8Array;
    try {
      const product = ristretto255.Point.fromBytes(theirs.point).multiply(this.#scalar);
      if (product.is0()) return undefined;
      secret = product.toBytes();
    } catch {
      return undefined;
    }
    const [first, second] = this.#side === "dialer" ? [this.#own, theirs] : [theirs, this.#own];
    const session = createHash("sha512")
      .update(joined([SESSION, NOTHING, secret]))
      .update(joined([first.point, first.said, second.point, second.said]))
      .digest();
    const key = (purpose: string) =>
      new Uint8Array(hkdfSync("sha512", session, NOTHING, `lockstep ${purpose}`, KEY_BYTES));
    const proof = (side: Side) =>
      createHmac("sha512", key(`proof of the ${side}`))
        .digest()
        .subarray(0, KEY_BYTES);
    return {
      proofs: { dialer: proof("dialer"), listener: proof("listener") },
      frames: { dialer: key("frames of the dialer"), listener: key("frames of the listener") },
      tls: key("tls"),
    };
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && timingSafeEqual(a, b);
}

/**
 * Returns a point whose logarithm nobody knows, derived from the token alone. Exported for the
 * draft's test vector.
 */
export function generatorOf(
  token: string,
  channel: Uint8Array = CHANNEL,
  id: Uint8Array = NOTHING,
): Point {
  const secret = Buffer.from(token);
  const used = joined([GENERATOR, secret]).byteLength;
  const padding = Buffer.alloc(Math.max(0, HASH_BLOCK_BYTES - 1 - used));
  const text = joined([GENERATOR, secret, padding, channel, id]);
  const { deriveToCurve } = ristretto255_hasher;
  assert(deriveToCurve !== undefined, "ristretto255 has a map from bytes");
  return deriveToCurve(createHash("sha512").update(text).digest());
}

/** Puts the length before each part, so that no two lists give the same bytes. */
function joined(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts.flatMap((part) => [lengthOf(part.byteLength), part]));
}

/** Encodes a length in LEB128, as the draft requires. */
function lengthOf(byteLength: number): Uint8Array {
  const bytes: number[] = [];
  let left = byteLength;
  do {
    bytes.push(left < 128 ? left : (left % 128) | 128);
    left = Math.floor(left / 128);
  } while (left > 0);
  return Uint8Array.from(bytes);
}
