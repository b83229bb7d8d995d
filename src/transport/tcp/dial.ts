/** How a rank gets a stream to another: dials until the other is there, and proves itself. */
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "../../errors.ts";
import { deadlinePassed, protocolError } from "../failure.ts";
import { addressError, formatAddress } from "./address.ts";
import { encodeControl, FRAME } from "./frame.ts";
import { encodeHello, type Hello, NONCE_BYTES, proofOf, sameProof } from "./handshake.ts";
import { type DialOptions, Link } from "./link.ts";

const RETRY_MS = 50;
/** What a peer's address may say before the peer has begun to listen. */
const NOT_YET = ["ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"];

export interface DialRequest extends DialOptions {
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
      await introduce(link, request, deadlineAt);
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

function introduce(link: Link, request: DialRequest, deadlineAt: number): Promise<void> {
  const { hello, token, deadlineMs, signal } = request;
  const bytes = encodeHello(hello);
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
    let proved = false;
    link.handler = {
      destination: () => "sent data before it was asked",
      closed: (why) =>
        fail(proved ? unauthorized(hello.to) : addressError(notYet(why), request.address)),
      frame: (frame, payload) => {
        if (!proved && frame.type === FRAME.challenge && payload.byteLength > NONCE_BYTES) {
          const nonce = payload.slice(0, NONCE_BYTES);
          const proof = payload.slice(NONCE_BYTES);
          const mine = proofOf(token, "dialer", bytes, nonce);
          link.write([encodeControl({ type: FRAME.proof }, mine)]);
          if (!sameProof(proof, proofOf(token, "listener", bytes, nonce))) {
            return fail(unauthorized(hello.to));
          }
          proved = true;
        } else if (proved && frame.type === FRAME.welcome) {
          end();
          request.welcomed(link);
          resolve();
        } else if (frame.type === FRAME.refusal) {
          fail(protocolError(hello.to, `refuses: ${Buffer.from(payload).toString()}`));
        } else fail(protocolError(hello.to, "answered out of turn"));
      },
    };
    link.write([encodeControl({ type: FRAME.hello }, bytes)]);
  });
}

/** A door that closes at once may belong to a group that is gone: one knocks again. */
function notYet(why: string): NodeJS.ErrnoException {
  return Object.assign(new Error(why), { code: "ECONNRESET" });
}

function unauthorized(peer: number): LockstepError {
  return new LockstepError("UNAUTHORIZED", `Rank ${peer} has another token.`, {
    hint: "Start every worker of a run with the same token.",
    fields: { peer },
  });
}
