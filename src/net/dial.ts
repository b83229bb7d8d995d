/**
 * Gets a stream to another rank: dials until the other rank listens, verifies it, and says what the
 * stream is for.
 */
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "../errors.ts";
import { addressError, formatAddress } from "./address.ts";
import { deadlinePassed, protocolError } from "./failure.ts";
import { FRAME } from "./frame.ts";
import { encodeHello, type Hello, introduce, type Secrets, unauthorized } from "./handshake.ts";
import { type DialOptions, Link } from "./link.ts";

const RETRY_MS = 50;
/** Errors that an address may give before the peer listens. */
const NOT_YET = ["ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"];

export interface DialRequest extends DialOptions, Secrets {
  readonly hello: Hello;
  readonly deadlineMs: number;
  /** Milliseconds until the peer must have proved itself, if it is known to listen already. */
  readonly reachMs?: number;
  /** Must take the link at once, because the data after the welcome may be in the same packet. */
  readonly welcomed: (link: Link) => void;
}

/**
 * Opens a stream to a rank.
 * @throws UNAUTHORIZED, PROTOCOL, ADDRESS or DEADLINE naming the rank, or the signal's reason
 */
export async function dialPeer(request: DialRequest): Promise<void> {
  const { deadlineMs, reachMs = deadlineMs, signal } = request;
  const reachAt = performance.now() + Math.min(reachMs, deadlineMs);
  let last: LockstepError | undefined;
  for (;;) {
    signal.throwIfAborted();
    try {
      const link = await Link.dial(request, Math.max(1, reachAt - performance.now()));
      await getIn(link, request, reachAt);
      return;
    } catch (error) {
      if (!(error instanceof LockstepError) || error.code !== "ADDRESS") throw error;
      const { systemCode } = error.fields;
      if (!NOT_YET.includes(String(systemCode))) throw unreachable(request, error);
      // The last attempt was cut short, so an earlier error says more.
      if (last === undefined || systemCode !== "ETIMEDOUT") last = error;
    }
    if (performance.now() > reachAt) throw unreachable(request, last);
    await delay(RETRY_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

function getIn(link: Link, request: DialRequest, reachAt: number): Promise<void> {
  const { hello, deadlineMs, signal } = request;
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      end();
      void link.end();
      reject(error);
    };
    const aborted = () => fail(signal.reason as Error);
    const silent = () => fail(addressError(systemError("ETIMEDOUT"), request.address));
    let timer = setTimeout(silent, Math.max(1, reachAt - performance.now()));
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
    };
    signal.addEventListener("abort", aborted);
    let isSecured = false;
    const introduction = introduce(link, request, hello.to, () => {
      isSecured = true;
      clearTimeout(timer);
      const late = () => fail(deadlinePassed(hello.to, "waiting to be let in", deadlineMs));
      timer = setTimeout(late, deadlineMs);
      link.write({ type: FRAME.join }, encodeHello(hello));
    });
    link.handler = {
      destination: () => "sent data before it was asked",
      closed: (why, isTheirs) => {
        if (isTheirs) return fail(protocolError(hello.to, why));
        const refused = introduction.hasProved && !isSecured;
        fail(
          refused
            ? unauthorized(hello.to)
            : addressError(systemError("ECONNRESET"), request.address),
        );
      },
      frame: (frame, payload) => {
        if (!isSecured) {
          try {
            introduction.heard(frame, payload);
          } catch (error) {
            fail(error as Error);
          }
        } else if (frame.type === FRAME.welcome) {
          end();
          request.welcomed(link);
          resolve();
        } else if (frame.type === FRAME.refusal) {
          fail(protocolError(hello.to, `refuses: ${Buffer.from(payload).toString()}`));
        } else fail(protocolError(hello.to, "answered out of turn"));
      },
    };
  });
}

function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the program that listens there closes the connection",
  ETIMEDOUT: "there is no answer",
  EHOSTUNREACH: "there is no route to that host",
  ENETUNREACH: "there is no route to that network",
  ENOTFOUND: "the name of the host is not known",
  EAI_AGAIN: "the name of the host cannot be looked up",
};

/** `last` is the error of the last attempt. */
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
      hint: "A host name must mean the same on every machine, and firewalls must let the workers' ports through (`lockstep agent --ports`).",
      fields: { peer: hello.to, address: where, systemCode: systemCode ?? "" },
      cause: last,
    },
  );
}
