/** How a rank gets a stream to another: dials until the other is there, makes sure of it, and says what it wants. */
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "../../errors.ts";
import { deadlinePassed, protocolError } from "../failure.ts";
import { addressError, formatAddress } from "./address.ts";
import { encodeControl, FRAME } from "./frame.ts";
import { encodeHello, type Hello, introduce, type Secrets, unauthorized } from "./handshake.ts";
import { type DialOptions, Link } from "./link.ts";

const RETRY_MS = 50;
/** What a peer's address may say before the peer has begun to listen. */
const NOT_YET = ["ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"];

export interface DialRequest extends DialOptions, Secrets {
  readonly hello: Hello;
  readonly deadlineMs: number;
  /** Takes the link at once: what follows the welcome may be in the same packet. */
  readonly welcomed: (link: Link) => void;
}

/** Rejects with UNAUTHORIZED, PROTOCOL, ADDRESS or DEADLINE naming the rank, or the signal's reason. */
export async function dialPeer(request: DialRequest): Promise<void> {
  const { hello, deadlineMs, signal, address } = request;
  const deadlineAt = performance.now() + deadlineMs;
  for (;;) {
    signal.throwIfAborted();
    try {
      const link = await Link.dial(request, Math.max(1, deadlineAt - performance.now()));
      await getIn(link, request, deadlineAt);
      return;
    } catch (error) {
      if (!(error instanceof LockstepError) || error.code !== "ADDRESS") throw error;
      if (!NOT_YET.includes(String(error.fields["systemCode"]))) throw error;
    }
    if (performance.now() > deadlineAt) {
      throw deadlinePassed(hello.to, `dialing ${formatAddress(address)}`, deadlineMs);
    }
    await delay(RETRY_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

function getIn(link: Link, request: DialRequest, deadlineAt: number): Promise<void> {
  const { hello, deadlineMs, signal } = request;
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      end();
      link.end();
      reject(error);
    };
    const aborted = () => fail(signal.reason as Error);
    const timer = setTimeout(
      () => fail(deadlinePassed(hello.to, "waiting to be let in", deadlineMs)),
      Math.max(1, deadlineAt - performance.now()),
    );
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
    };
    signal.addEventListener("abort", aborted);
    let isSecured = false;
    const introduction = introduce(link, request, hello.to, () => {
      isSecured = true;
      link.write([encodeControl({ type: FRAME.join }, encodeHello(hello))]);
    });
    link.handler = {
      destination: () => "sent data before it was asked",
      closed: (why, isTheirs) => {
        if (isTheirs) return fail(protocolError(hello.to, why));
        const refused = introduction.hasProved && !isSecured;
        fail(refused ? unauthorized(hello.to) : addressError(notYet(why), request.address));
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

/** A door that closes at once may belong to a group that is gone: one knocks again. */
function notYet(why: string): NodeJS.ErrnoException {
  return Object.assign(new Error(why), { code: "ECONNRESET" });
}
