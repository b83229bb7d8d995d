/**
 * How two ends of a stream verify each other. Both send a point and say whether they use TLS. Then
 * the dialer proves that it has the keys that follow from the points, and after it the listener.
 * From then on the stream is sealed, or continues as TLS, and the dialer says what it wants. A
 * stranger learns nothing about the token or the run.
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

/** What a dialer asks for, after it has proved itself. */
export interface Hello {
  /** The name of the group, which all ranks of a run share. */
  readonly group: string;
  readonly generation: number;
  readonly size: number;
  /** The rank that dials, and the rank that it wants. */
  readonly from: number;
  readonly to: number;
  readonly stream: number;
}

/** Both ends must know the same token, and must both use TLS or both not. */
export interface Secrets {
  readonly token: string;
  readonly tls: boolean;
}

export function encodeHello(hello: Hello): Uint8Array {
  return Buffer.from(JSON.stringify(hello));
}

/** Returns undefined unless every field is valid. */
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

/**
 * Each guess costs a stranger a connection (docs/decisions/0015), so nobody can guess this many
 * characters.
 */
const LEAST_CHARACTERS = 16;

/** @throws INVALID_OPTION when the token is short enough to be guessed */
export function checkToken(token: string): void {
  if (token.length >= LEAST_CHARACTERS) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `The token has ${token.length} characters, but needs ${LEAST_CHARACTERS} or more.`,
    { hint: "Use the same longer token everywhere: openssl rand -hex 16 makes one." },
  );
}

/** One end of a stream until it is sealed. */
export interface Introduction {
  /** @throws UNAUTHORIZED or PROTOCOL naming the rank that was dialed */
  heard(frame: Frame, payload: Uint8Array): void;
  /** Whether this end has proved that it knows the token, and waits for the other end's proof. */
  readonly hasProved: boolean;
}

/**
 * Introduces the end that dials rank `to`. `secured` is called when all that follows comes from its
 * peer.
 */
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
        if (keys === undefined)
          throw protocolError(to, "gave an answer that no Lockstep program gives");
        link.write({ type: FRAME.proof }, keys.proofs.dialer);
      } else if (keys !== undefined && type === FRAME.proof) {
        if (!sameBytes(payload, keys.proofs.listener)) throw unauthorized(to);
        secure(link, "dialer", keys, tls, secured);
      } else throw protocolError(to, "answered out of turn");
    },
  };
}

/**
 * Receives a dialer that has not proved itself. The result takes its frames, and returns false if
 * the connection must be closed. `refused` is called for a dialer with a different token.
 */
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
  return new LockstepError("UNAUTHORIZED", `Rank ${peer} has a different token.`, {
    hint: "Start every worker of a run with the same token.",
    fields: { peer },
  });
}

function tlsDiffers(peer: number, ours: boolean): LockstepError {
  const [theirs, own] = ours ? ["without", "with"] : ["with", "without"];
  return new LockstepError("PROTOCOL", `Rank ${peer} speaks ${theirs} TLS, but this side ${own}.`, {
    hint: "Use --tls on both sides, or on neither.",
    fields: { peer },
  });
}
