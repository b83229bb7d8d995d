/**
 * How two ends that share a token agree on keys that nobody else has: CPace (draft-irtf-cfrg-cpace) over X25519. Each
 * sends a public key whose base point is made of the token. Who does not know the token learns nothing to guess it by,
 * neither by listening nor by taking part, but for one guess each time that it takes part.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  type KeyObject,
  randomBytes,
  scryptSync,
} from "node:crypto";
import { LockstepError } from "../../errors.ts";

export const KEY_BYTES = 32;
const MIN_TOKEN_LENGTH = 16;
/** 32 MiB and about 0.1 s, once for each token and process. */
const STRETCH = { N: 2 ** 15, r: 8, p: 1, maxmem: 2 ** 26 } as const;
/** RFC 8410: a private key of X25519 in DER is this and 32 bytes. */
const PRIVATE_KEY = Buffer.from("302e020100300506032b656e04220420", "hex");

interface Secret {
  /** Of the token, slow to compute. */
  readonly stretched: Buffer;
  readonly base: KeyObject;
}

/** What both ends know after the exchange, and nobody else. */
export interface Session {
  /** What each end shows to the other. */
  readonly dialerProof: Uint8Array;
  readonly listenerProof: Uint8Array;
  /** For what each end sends. */
  readonly dialerKey: Uint8Array;
  readonly listenerKey: Uint8Array;
}

const secrets = new Map<string, Secret>();

/** Throws INVALID_OPTION for a token that could be guessed. */
export function checkToken(token: string): void {
  if (token.length >= MIN_TOKEN_LENGTH) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `The token has ${token.length} characters; at least ${MIN_TOKEN_LENGTH} are needed, so that nobody guesses it.`,
    { hint: "`openssl rand -hex 16` makes one." },
  );
}

/** The key of TLS without certificates. */
export function sharedKey(token: string): Buffer {
  return createHash("sha256").update("lockstep tls 2\n").update(secretOf(token).stretched).digest();
}

/** One end's part, for one stream. */
export class Exchange {
  /** To be sent. */
  readonly publicKey: Uint8Array;
  readonly #private: KeyObject;
  readonly #secret: Secret;

  constructor(token: string) {
    this.#secret = secretOf(token);
    this.#private = createPrivateKey({
      key: Buffer.concat([PRIVATE_KEY, randomBytes(KEY_BYTES)]),
      format: "der",
      type: "pkcs8",
    });
    this.publicKey = diffieHellman({ privateKey: this.#private, publicKey: this.#secret.base });
  }

  /** `transcript` is all that both have sent, in order. Undefined for a public key that is none. */
  agree(theirs: Uint8Array, transcript: readonly Uint8Array[]): Session | undefined {
    if (theirs.byteLength !== KEY_BYTES) return undefined;
    let shared: Buffer;
    try {
      shared = diffieHellman({ privateKey: this.#private, publicKey: publicKeyOf(theirs) });
    } catch {
      return undefined; // a point of low order
    }
    const said = createHash("sha512").update("lockstep stream 2\n");
    for (const bytes of transcript) said.update(`${bytes.byteLength}\n`).update(bytes);
    const keys = hkdfSync("sha512", shared, this.#secret.stretched, said.digest(), 4 * KEY_BYTES);
    const [dialerProof, listenerProof, dialerKey, listenerKey] = [0, 1, 2, 3].map(
      (index) => new Uint8Array(keys, index * KEY_BYTES, KEY_BYTES),
    ) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
    return { dialerProof, listenerProof, dialerKey, listenerKey };
  }
}

function secretOf(token: string): Secret {
  let secret = secrets.get(token);
  if (secret === undefined) {
    const stretched = scryptSync(token, "lockstep token 2", 64, STRETCH);
    secret = { stretched, base: publicKeyOf(mapToCurve(stretched)) };
    secrets.set(token, secret);
  }
  return secret;
}

function publicKeyOf(point: Uint8Array): KeyObject {
  const x = Buffer.from(point).toString("base64url");
  return createPublicKey({ key: { kty: "OKP", crv: "X25519", x }, format: "jwk" });
}

const P = 2n ** 255n - 19n;
const A = 486_662n;

/**
 * Elligator 2 for curve25519 (RFC 9380, 6.7.1): the u coordinate of a point whose logarithm nobody knows, little endian.
 * `bytes` is a number in little endian, taken modulo 2^255 − 19.
 */
export function mapToCurve(bytes: Uint8Array): Uint8Array {
  const r = BigInt(`0x${Buffer.from(bytes).reverse().toString("hex")}`) % P;
  const first = ((P - A) * power(1n + 2n * r * r, P - 2n)) % P;
  const square = (first * first * first + A * first * first + first) % P;
  const u = power(square, (P - 1n) / 2n) === P - 1n ? (2n * P - A - first) % P : first;
  return Buffer.from(u.toString(16).padStart(2 * KEY_BYTES, "0"), "hex").reverse();
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let square = base % P, left = exponent; left > 0n; left >>= 1n) {
    if ((left & 1n) === 1n) result = (result * square) % P;
    square = (square * square) % P;
  }
  return result;
}
