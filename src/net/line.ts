/**
 * A line between two programs that share a token: short messages of JSON, in order, beside the
 * streams of a group. Messages have a largest size, and a line is closed when the other end is
 * silent or does not read.
 */
import { LockstepError } from "../errors.ts";
import { parseAddress } from "./address.ts";
import { dialPeer } from "./dial.ts";
import { FRAME, type Frame } from "./frame.ts";
import { checkToken } from "./handshake.ts";
import type { Link } from "./link.ts";
import type { LinkFaults } from "./link-faults.ts";
import type { TcpListener } from "./listener.ts";

/** The largest message, in bytes of UTF-8. */
const MAX_LINE_BYTES = 2 ** 20;
/** The bytes that may wait for an end that reads slowly. */
const MAX_BACKLOG_BYTES = 2 ** 24;
const PING_MS = 1000;
const SILENCE_MS = 10_000;
const GROUP = "lockstep line 1";

export interface LineHandler {
  /** The value is parsed, and not checked any further. */
  message(value: unknown): void;
  /** Called once with the reason why the other end is gone, as in "its connection was closed". */
  closed(why: string): void;
}

export class Line {
  readonly #link: Link;
  readonly #timer: NodeJS.Timeout;
  #handler: LineHandler | undefined;
  #heardAt = performance.now();
  #buffer = new Uint8Array(0);
  #end: string | undefined;

  /** @internal Use `dialLine` or `serveLines`. */
  constructor(link: Link) {
    this.#link = link;
    this.#timer = setInterval(() => this.#tick(), PING_MS).unref();
    link.handler = {
      destination: (frame) => this.#destination(frame),
      frame: (frame) => this.#frame(frame),
      closed: (why) => this.#gone(why),
    };
  }

  /** The address of this machine that the line goes out from. */
  get localHost(): string {
    return this.#link.localHost;
  }

  /** It has these faults, as long as they last. */
  haveFaults(faults: LinkFaults): void {
    faults.add(this.#link);
  }

  /** How long the other end has been silent, in milliseconds. It says something each second. */
  get silentMs(): number {
    return performance.now() - this.#heardAt;
  }

  /**
   * The receiver of messages. It must be set in the same turn of the event loop in which the line
   * was obtained.
   */
  set handler(handler: LineHandler) {
    this.#handler = handler;
    if (this.#end !== undefined) handler.closed(this.#end);
  }

  send(value: unknown): void {
    if (this.#end !== undefined) return;
    const bytes = Buffer.from(JSON.stringify(value));
    const { byteLength } = bytes;
    if (byteLength > MAX_LINE_BYTES)
      return this.#fail(`a message of ${byteLength} bytes is too long`);
    this.#link.write({ type: FRAME.message }, bytes);
  }

  /** Sends what waits, then closes. The handler is told. */
  close(): void {
    if (this.#end !== undefined) return;
    void this.#link.end();
    this.#gone("it was closed here");
  }

  #tick(): void {
    if (this.silentMs > SILENCE_MS) this.#fail("it was silent for 10 s");
    else if (this.#link.backlog > MAX_BACKLOG_BYTES) this.#fail("it does not read");
    else this.#link.write({ type: FRAME.ping });
  }

  #destination({ length, total, offset }: Frame): Uint8Array | string {
    if (length !== total || offset !== 0 || total > MAX_LINE_BYTES) {
      return "it sent a message that is too long";
    }
    this.#buffer = new Uint8Array(length);
    return this.#buffer;
  }

  #frame({ type }: Frame): void {
    this.#heardAt = performance.now();
    if (this.#end !== undefined || type === FRAME.ping) return;
    if (type !== FRAME.message) return this.#fail("it sent a frame out of turn");
    let value: unknown;
    try {
      value = JSON.parse(Buffer.from(this.#buffer).toString());
    } catch {
      return this.#fail("it sent a message that is not JSON");
    }
    this.#handler?.message(value);
  }

  #fail(why: string): void {
    this.#gone(why);
    this.#link.destroy();
  }

  #gone(why: string): void {
    if (this.#end !== undefined) return;
    this.#end = why;
    clearInterval(this.#timer);
    this.#handler?.closed(why);
  }
}

export interface DialLineOptions {
  /** As host:port. */
  readonly address: string;
  readonly token: string;
  /**
   * Whether the connection is encrypted; the other end must use the same setting. Default: false.
   */
  readonly tls?: boolean;
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
}

/**
 * Dials until the other end listens.
 * @throws UNAUTHORIZED, PROTOCOL, ADDRESS, DEADLINE, or the signal's reason
 */
export async function dialLine(options: DialLineOptions): Promise<Line> {
  const { address, token, tls = false, deadlineMs, signal } = options;
  const hello = { group: GROUP, generation: 0, size: 1, from: 0, to: 0, stream: 0 };
  const place = parseAddress(address);
  checkToken(token);
  try {
    return await new Promise<Line>((resolve, reject) => {
      const welcomed = (link: Link) => resolve(new Line(link));
      dialPeer({ address: place, token, tls, hello, deadlineMs, signal, welcomed }).catch(reject);
    });
  } catch (error) {
    throw error instanceof LockstepError ? inWords(error, options) : error;
  }
}

/** Rewrites errors of the dialer, which name ranks, because a line has none. */
function inWords(error: LockstepError, options: DialLineOptions): LockstepError {
  const { address, deadlineMs } = options;
  const { code, message } = error;
  const fields = { address };
  switch (code) {
    case "UNAUTHORIZED":
      return new LockstepError(code, `${address} has a different token.`, {
        hint: "Use the same token on both sides.",
        fields,
      });
    case "DEADLINE":
      return new LockstepError(code, `${address} could not be reached within ${deadlineMs} ms.`, {
        hint: "Does lockstep listen there, and does a firewall let this machine through?",
        fields,
      });
    case "PROTOCOL":
      return new LockstepError(code, message.replace(/^Rank 0/, address), { fields });
    default:
      return new LockstepError(code, message, { fields });
  }
}

/**
 * Calls `onLine` for each line whose other end has proved that it knows the token. The result ends
 * this.
 */
export function serveLines(listener: TcpListener, onLine: (line: Line) => void): () => void {
  return listener.serve(GROUP, 0, (_, link) => {
    const line = new Line(link);
    onLine(line);
    return undefined;
  });
}
