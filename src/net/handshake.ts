/**
 * How two ends of a stream make sure of each other. Both send a point and say whether they use TLS; then the dialer shows that it
 * has the keys that follow, and only then the listener; then the stream is sealed, or goes on as TLS. What the dialer wants is said
 * under the keys. A stranger learns nothing of the token, and nothing of the run.
 */
import { LockstepError } from "../errors.ts";
import {
  Exchange,
  POINT_BYTES,
  type SessionKeys,
  type Share,
  type Side,
  sameBytes,
} from "./exchange.ts";
import { protocolError } from "./failure.ts";
import { FRAME, type Frame } from "./frame.ts";
import type { Link } from "./link.ts";
import { Seal } from "./seal.ts";

/** What a dialer asks for, once it is known. */
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

/** Both ends must know the same token, and both use TLS or neither. */
export interface Secrets {
  readonly token: string;
  readonly tls: boolean;
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
  const { group, generation, size, from, to, stream } = value as Record<keyof Hello, unknown>;
  const numbers = [generation, size, from, to, stream];
  const valid =
    typeof group === "string" &&
    group.length <= 200 &&
    numbers.every((number) => Number.isSafeInteger(number) && (number as number) >= 0);
  return valid ? (value as Hello) : undefined;
}

/** Each guess costs a stranger a connection (docs/decisions/0015): so many characters are beyond all patience. */
const LEAST_CHARACTERS = 16;

/** Throws INVALID_OPTION for a token that could be guessed. */
export function checkToken(token: string): void {
  if (token.length >= LEAST_CHARACTERS) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `The token has ${token.length} characters, and needs ${LEAST_CHARACTERS} or more.`,
    { hint: "Give the same longer one everywhere: openssl rand -hex 16 makes one." },
  );
}

/** One end until the stream is sealed. */
export interface Introduction {
  /** Throws UNAUTHORIZED or PROTOCOL naming the rank that was dialed. */
  heard(frame: Frame, payload: Uint8Array): void;
  /** Whether this end has shown that it knows the token, and waits for the other to do so. */
  readonly hasProved: boolean;
}

/** The end that dials rank `to`; `secured` is called when what follows is its peer's. */
export function introduce(
  link: Link,
  { token, tls }: Secrets,
  to: number,
  secured: () => void,
): Introduction {
  const exchange = new Exchange("dialer", token, said(tls));
  let keys: SessionKeys | undefined;
  link.write({ type: FRAME.hello }, encodeShare(exchange.share));
  return {
    get hasProved() {
      return keys !== undefined;
    },
    heard({ type }, payload) {
      if (keys === undefined && type === FRAME.challenge) {
        const theirs = decodeShare(payload);
        if (theirs !== undefined && usesTls(theirs) !== tls) throw tlsDiffers(to, tls);
        keys = theirs && exchange.finish(theirs);
        if (keys === undefined) throw protocolError(to, "answered what no other end does");
        link.write({ type: FRAME.proof }, keys.proofs.dialer);
      } else if (keys !== undefined && type === FRAME.proof) {
        if (!sameBytes(payload, keys.proofs.listener)) throw unauthorized(to);
        secure(link, "dialer", keys, tls, secured);
      } else throw protocolError(to, "answered out of turn");
    },
  };
}

/** The end that was dialed, by nobody knows whom yet. The result takes its frames, and returns false when it is to be sent away; `refused` hears of one with another token. */
export function receiveStranger(
  link: Link,
  { token, tls }: Secrets,
  { secured, refused }: { readonly secured: () => void; readonly refused: () => void },
): (frame: Frame, payload: Uint8Array) => boolean {
  let keys: SessionKeys | undefined;
  let state: "hello" | "proof" | "done" = "hello";
  return ({ type }, payload) => {
    if (state === "hello" && type === FRAME.hello) {
      const theirs = decodeShare(payload);
      if (theirs === undefined) return false;
      const exchange = new Exchange("listener", token, said(tls));
      link.write({ type: FRAME.challenge }, encodeShare(exchange.share));
      keys = usesTls(theirs) === tls ? exchange.finish(theirs) : undefined;
      state = "proof";
      return true;
    }
    if (state !== "proof" || type !== FRAME.proof || keys === undefined) return false;
    if (!sameBytes(payload, keys.proofs.dialer)) {
      refused();
      return false;
    }
    state = "done";
    link.write({ type: FRAME.proof }, keys.proofs.listener);
    secure(link, "listener", keys, tls, secured);
    return true;
  };
}

function secure(
  link: Link,
  side: Side,
  keys: SessionKeys,
  tls: boolean,
  secured: () => void,
): void {
  if (tls) return link.startTls(side, keys.tls, secured);
  const other = side === "dialer" ? "listener" : "dialer";
  link.seal(new Seal(keys.frames[side]), new Seal(keys.frames[other]));
  secured();
}

function said(tls: boolean): Uint8Array {
  return Uint8Array.of(tls ? 1 : 0);
}

function usesTls(share: Share): boolean {
  return share.said[0] === 1;
}

function encodeShare(share: Share): Uint8Array {
  return Buffer.concat([share.point, share.said]);
}

function decodeShare(bytes: Uint8Array): Share | undefined {
  if (bytes.byteLength !== POINT_BYTES + 1) return undefined;
  return { point: bytes.slice(0, POINT_BYTES), said: bytes.slice(POINT_BYTES) };
}

export function unauthorized(peer: number): LockstepError {
  return new LockstepError("UNAUTHORIZED", `Rank ${peer} has another token.`, {
    hint: "Start every worker of a run with the same token.",
    fields: { peer },
  });
}

function tlsDiffers(peer: number, ours: boolean): LockstepError {
  const [theirs, own] = ours ? ["without", "with"] : ["with", "without"];
  return new LockstepError("PROTOCOL", `Rank ${peer} speaks ${theirs} TLS, this side ${own}.`, {
    hint: "Give --tls on both sides, or on none.",
    fields: { peer },
  });
}
