/** How a rank gets a stream to another: dials until the other is there, and proves itself. */
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "../../errors.ts";
import { deadlinePassed, protocolError } from "../failure.ts";
import { addressError, formatAddress } from "./address.ts";
import { Exchange, KEY_BYTES, type Session } from "./exchange.ts";
import { FRAME, type Frame } from "./frame.ts";
import { encodeHello, type Hello, sameProof } from "./handshake.ts";
import { type DialOptions, Link } from "./link.ts";

const RETRY_MS = 50;
/** What a peer's address may say before the peer has begun to listen. */
const NOT_YET = ["ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"];

export interface DialRequest extends DialOptions {
  readonly hello: Hello;
  readonly deadlineMs: number;
  /** Until the other end has proved itself, where it is known to listen already. */
  readonly reachMs?: number;
  /** Takes the link at once: what follows the welcome may be in the same packet. */
  readonly welcomed: (link: Link) => void;
}

/** Rejects with UNAUTHORIZED, PROTOCOL, ADDRESS or DEADLINE naming the rank, or the signal's reason. */
export async function dialPeer(request: DialRequest): Promise<void> {
  const { deadlineMs, reachMs = deadlineMs, signal } = request;
  const reachAt = performance.now() + Math.min(reachMs, deadlineMs);
  let last: LockstepError | undefined;
  for (;;) {
    signal.throwIfAborted();
    try {
      const link = await Link.dial(request, Math.max(1, reachAt - performance.now()));
      await new Introduction(link, request, reachAt).ended;
      return;
    } catch (error) {
      if (!(error instanceof LockstepError) || error.code !== "ADDRESS") throw error;
      const { systemCode } = error.fields;
      if (!NOT_YET.includes(String(systemCode))) throw unreachable(request, error);
      // The last attempt is cut short; what those before it have met says more.
      if (last === undefined || systemCode !== "ETIMEDOUT") last = error;
    }
    if (performance.now() > reachAt) throw unreachable(request, last);
    await delay(RETRY_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** Until one is let in. */
class Introduction {
  readonly ended: Promise<void>;
  readonly #link: Link;
  readonly #request: DialRequest;
  readonly #exchange: Exchange;
  readonly #hello: Uint8Array;
  #session: Session | undefined;
  #isKnown = false;
  #timer: NodeJS.Timeout;
  #settle: (error?: Error) => void = () => undefined;

  constructor(link: Link, request: DialRequest, reachAt: number) {
    this.#link = link;
    this.#request = request;
    this.#exchange = new Exchange(request.token);
    this.#hello = encodeHello(request.hello, this.#exchange.publicKey);
    const { signal, address } = request;
    const late = () => this.#fail(addressError(systemError("ETIMEDOUT"), address));
    this.#timer = setTimeout(late, Math.max(1, reachAt - performance.now()));
    const aborted = () => this.#fail(signal.reason as Error);
    signal.addEventListener("abort", aborted);
    this.ended = new Promise<void>((resolve, reject) => {
      this.#settle = (error) => {
        clearTimeout(this.#timer);
        signal.removeEventListener("abort", aborted);
        if (error === undefined) resolve();
        else reject(error);
      };
    });
    link.handler = {
      destination: () => "sent data before it was asked",
      // A door that closes at once may belong to a group that is gone: one knocks again.
      closed: (why, isBroken) =>
        this.#fail(
          this.#isKnown && isBroken
            ? protocolError(request.hello.to, why)
            : addressError(systemError("ECONNRESET"), address),
        ),
      frame: (frame, payload) => this.#hear(frame, payload),
    };
    link.write({ type: FRAME.hello }, this.#hello);
  }

  #hear({ type }: Frame, payload: Uint8Array): void {
    const { to } = this.#request.hello;
    if (this.#isKnown) {
      if (type === FRAME.welcome) {
        this.#settle();
        this.#request.welcomed(this.#link);
      } else if (type === FRAME.refusal) {
        this.#fail(protocolError(to, `refuses: ${Buffer.from(payload).toString()}`));
      } else this.#fail(protocolError(to, "answered out of turn"));
    } else if (this.#session === undefined && type === FRAME.challenge) this.#prove(payload);
    else if (this.#session !== undefined && type === FRAME.proof) this.#check(payload);
    else if (this.#session !== undefined && type === FRAME.refusal) this.#fail(unauthorized(to));
    else this.#fail(protocolError(to, "answered out of turn"));
  }

  #prove(challenge: Uint8Array): void {
    const { to } = this.#request.hello;
    const theirs = challenge.slice();
    this.#session = this.#exchange.agree(theirs, [this.#hello, theirs]);
    if (theirs.byteLength !== KEY_BYTES || this.#session === undefined) {
      return this.#fail(protocolError(to, "answered with a key that is none"));
    }
    this.#link.write({ type: FRAME.proof }, this.#session.dialerProof);
  }

  #check(proof: Uint8Array): void {
    const { hello, tls, deadlineMs } = this.#request;
    const { listenerProof, dialerKey, listenerKey } = this.#session as Session;
    if (!sameProof(proof, listenerProof)) return this.#fail(unauthorized(hello.to));
    this.#isKnown = true;
    if (!tls) this.#link.seal(dialerKey, listenerKey);
    clearTimeout(this.#timer);
    const late = () => this.#fail(deadlinePassed(hello.to, "waiting to be let in", deadlineMs));
    this.#timer = setTimeout(late, deadlineMs);
  }

  #fail(error: Error): void {
    this.#settle(error);
    this.#link.destroy();
  }
}

function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "what listens there closes the connection",
  ETIMEDOUT: "there is no answer",
  EHOSTUNREACH: "there is no way to that host",
  ENETUNREACH: "there is no way to that network",
  ENOTFOUND: "the name of the host is not known",
  EAI_AGAIN: "the name of the host cannot be looked up",
};

/** `last` is what the last attempt ended with. */
function unreachable(request: DialRequest, last: LockstepError): LockstepError {
  const { hello, address, deadlineMs, reachMs } = request;
  const { systemCode, resolved } = last.fields;
  if (reachMs === undefined) {
    const isLate = NOT_YET.includes(String(systemCode));
    const doing = `dialing ${formatAddress(address)}`;
    return isLate ? deadlinePassed(hello.to, doing, deadlineMs) : last;
  }
  const host = String(resolved ?? address.host);
  const name = host === address.host ? "" : ` (${address.host})`;
  const where = formatAddress({ host, port: address.port });
  const what = WORDS[String(systemCode)] ?? String(systemCode);
  return new LockstepError(
    "ADDRESS",
    `Worker ${hello.from} could not reach worker ${hello.to} at ${where}${name}: ${what}.`,
    {
      hint: "Names of hosts must mean the same everywhere, and firewalls let the ports of workers through (`lockstep agent --ports`).",
      fields: { peer: hello.to, address: where, systemCode: systemCode ?? "" },
      cause: last,
    },
  );
}

function unauthorized(peer: number): LockstepError {
  return new LockstepError("UNAUTHORIZED", `Rank ${peer} has another token.`, {
    hint: "Start every worker of a run with the same token.",
    fields: { peer },
  });
}
