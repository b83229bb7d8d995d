/**
 * A key out of a password: CPace (draft-irtf-cfrg-cpace) over ristretto255 and SHA-512. Two ends that know the same token
 * get the same keys; one that does not learns only that its one guess was wrong, and nothing that it could try further
 * guesses on, whether it dialed, was dialed, or only listened. It knows no socket.
 */
import { createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";
import { ristretto255, ristretto255_hasher } from "@noble/curves/ed25519.js";
import { assert } from "../errors.ts";

type Point = InstanceType<typeof ristretto255.Point>;

export type Side = "dialer" | "listener";

/** What one end sends of itself: a point, and what it says in clear, which both ends must have seen alike. */
export interface Share {
  /** 32 bytes. */
  readonly point: Uint8Array;
  readonly said: Uint8Array;
}

/** Each of 32 bytes, another one in each connection and each direction. */
export interface SessionKeys {
  /** What each end sends to show that it has the keys; the dialer does so first. */
  readonly proofs: Readonly<Record<Side, Uint8Array>>;
  /** Of what each end sends afterwards. */
  readonly frames: Readonly<Record<Side, Uint8Array>>;
  /** For TLS over the same connection. */
  readonly tls: Uint8Array;
}

export const POINT_BYTES = 32;
const KEY_BYTES = 32;
const HASH_BLOCK_BYTES = 128; // of SHA-512
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
    // Twice as many random bytes as the order has: the rest of the division is even to 2^-256.
    this.#scalar = (BigInt(`0x${randomBytes(64).toString("hex")}`) % (Fn.ORDER - 1n)) + 1n;
    this.#own = { point: generatorOf(token).multiply(this.#scalar).toBytes(), said };
  }

  /** What goes to the other end. */
  get share(): Share {
    return this.#own;
  }

  /** Undefined for a share that no honest end sends: no point, the neutral one, or our own come back. */
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

/** A point that nobody knows the logarithm of, from the token alone. Exported for the draft's test vector. */
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

/** Each part behind its length, so that no two lists give the same bytes. */
function joined(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts.flatMap((part) => [lengthOf(part.byteLength), part]));
}

/** LEB128, as the draft has it. */
function lengthOf(byteLength: number): Uint8Array {
  const bytes: number[] = [];
  let left = byteLength;
  do {
    bytes.push(left < 128 ? left : (left % 128) | 128);
    left = Math.floor(left / 128);
  } while (left > 0);
  return Uint8Array.from(bytes);
}
