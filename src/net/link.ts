/**
 * One stream between two ranks: a socket and the reader of its frames. The end that dialed reads
 * payloads directly to their destination, so the receiver of data is the one that dials.
 */
import net from "node:net";
import tls from "node:tls";
import { type Address, addressError } from "./address.ts";
import type { Side } from "./exchange.ts";
import { type Frame, type FrameHandler, FrameReader, type Head } from "./frame.ts";
import { keepQueueShort } from "./loopback.ts";
import { Outbox } from "./outbox.ts";
import { withResolvers } from "./resolvers.ts";
import type { Seal } from "./seal.ts";
import { serverOptions, TLS_IDENTITY, TLS_OPTIONS } from "./tls.ts";

export interface LinkHandler {
  readonly destination: FrameHandler["destination"];
  readonly frame: (frame: Frame, payload: Uint8Array) => void;
  /**
   * Called once when no more frames will come. `isBroken` says whether the other end sent something
   * invalid.
   */
  readonly closed: (why: string, isBroken: boolean) => void;
}

export interface DialOptions {
  readonly address: Address;
  /** The local address to dial from. */
  readonly localAddress?: string;
  /**
   * Whether the stream continues as TLS. Payloads are then not read directly to their destination.
   */
  readonly tls: boolean;
  /** Aborting it ends the attempt. */
  readonly signal: AbortSignal;
}

const NOTHING = new Uint8Array(0);
const STAGING_BYTES = 2 ** 16;
/** The time for which a link that has sent its last byte waits for the other end to close. */
export const LINGER_MS = 1000;
/** Payloads shorter than this do not pay for a read of their own. */
const DIRECT_BYTES = 2 ** 14;

export class Link {
  #socket: net.Socket;
  readonly #reader: FrameReader;
  readonly #staging = new Uint8Array(STAGING_BYTES);
  #handler: LinkHandler | undefined;
  #why: string | undefined;
  #isBroken = false;
  #paused = false;
  #isCut = false;
  readonly #outbox = new Outbox(() => this.#socket);
  #isEnding = false;
  /** Whether the next bytes go directly to where a payload belongs. */
  #readsDirectly = false;
  #linger: NodeJS.Timeout | undefined;
  readonly #closed = withResolvers();

  /** @internal Use `Link.dial` or `Link.accept`. */
  constructor(open: (link: Link) => net.Socket) {
    this.#reader = new FrameReader({
      destination: (frame) => this.#handler?.destination(frame) ?? "sent data too early",
      frame: (frame, payload) => this.#handler?.frame(frame, payload),
      broken: (what) => this.#close(what, true),
    });
    this.#socket = open(this);
    this.#listen();
  }

  /**
   * Dials an address.
   * @throws ADDRESS, also when it takes too long, or the signal's reason
   */
  static dial(
    { address, localAddress, tls: secure, signal }: DialOptions,
    timeoutMs: number,
  ): Promise<Link> {
    const place = { ...address, ...(localAddress === undefined ? {} : { localAddress }) };
    return new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", aborted);
        link.#socket.off("error", failed);
      };
      const giveUp = (reason: Error) => {
        end();
        link.destroy();
        reject(reason);
      };
      let resolved = address.host;
      const failed = (error: Error) => giveUp(addressError(error, address, resolved));
      const aborted = () => giveUp(signal.reason as Error);
      const late = () => failed(Object.assign(new Error("late"), { code: "ETIMEDOUT" }));
      const timer = setTimeout(late, timeoutMs);
      signal.addEventListener("abort", aborted);
      const ready = () => {
        end();
        resolve(link);
      };
      const link: Link = new Link((self) => {
        if (secure) {
          const socket = net.connect(place).once("connect", ready);
          return socket.on("data", self.#feed);
        }
        const onread: net.OnReadOpts = {
          buffer: () => self.#target(),
          callback: (count, buffer) => self.#read(count, buffer),
        };
        const options: net.TcpSocketConnectOpts & { onread: net.OnReadOpts } = { ...place, onread };
        return net.connect(options).once("connect", ready);
      });
      link.#socket.setNoDelay(true).once("error", failed);
      link.#socket.once("lookup", (_error, found: string) => {
        resolved = found ?? resolved;
      });
    });
  }

  static accept(socket: net.Socket): Link {
    return new Link((self) => {
      socket.setNoDelay(true);
      keepQueueShort(socket);
      return socket.on("data", self.#feed);
    });
  }

  /** The receiver of frames from now on. */
  set handler(handler: LinkHandler) {
    this.#handler = handler;
    if (this.#why !== undefined) handler.closed(this.#why, this.#isBroken);
  }

  /** Seals every frame from now on, and accepts only frames that are sealed likewise. */
  seal(out: Seal, into: Seal): void {
    this.#outbox.seal = out;
    this.#reader.seal = into;
  }

  /** Continues as TLS with this key. Closes the link if that fails. */
  startTls(side: Side, key: Uint8Array, done: () => void): void {
    const plain = this.#socket;
    plain.removeAllListeners("data").removeAllListeners("close").off("end", this.#ended);
    const psk = Buffer.from(key);
    this.#socket =
      side === "dialer"
        ? tls.connect({
            ...TLS_OPTIONS,
            socket: plain,
            rejectUnauthorized: false, // there are no certificates, and a wrong key ends the handshake
            checkServerIdentity: () => undefined,
            pskCallback: () => ({ psk, identity: TLS_IDENTITY }),
          })
        : new tls.TLSSocket(plain, serverOptions(psk));
    this.#listen();
    this.#socket.once(side === "dialer" ? "secureConnect" : "secure", done);
    this.#socket.on("data", this.#feed);
  }

  get isClosed(): boolean {
    return this.#why !== undefined;
  }

  get isPaused(): boolean {
    return this.#paused;
  }

  /** Whether a part of a frame has come, and its end has not. */
  get isInFrame(): boolean {
    return this.#reader.isInFrame;
  }

  /** The address of this machine at which the socket is bound. */
  get localHost(): string {
    return this.#socket.localAddress ?? "";
  }

  /** The bytes that wait to be sent. */
  get backlog(): number {
    return this.#outbox.backlog;
  }

  /**
   * Writes a frame. A payload of up to `JOINED_BYTES` may be overwritten at once, a longer one when
   * `done` is called: when the frame has been handed to the system. If the link closes before,
   * `done` is never called.
   */
  write(head: Head, payload: Uint8Array = NOTHING, done?: () => void): void {
    if (this.#why === undefined) this.#outbox.write(head, payload, done);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#isCut) this.#socket.resume();
  }

  /** Holds all bytes back in both directions, as a cut network does, until it is healed. */
  set isCut(isCut: boolean) {
    if (isCut === this.#isCut) return;
    this.#isCut = isCut;
    if (isCut) this.#socket.pause().cork();
    else {
      this.#socket.uncork();
      if (!this.#paused) this.#socket.resume();
    }
  }

  /**
   * Sends what waits, reads nothing more, and closes when the other end has closed, too, at the
   * latest after `LINGER_MS`. Resolves then. The system answers bytes that come to a closed socket
   * with a reset, and then the other end can fail to write before it has read the last frames, which
   * say why. Only a link in the middle of a payload closes at once: its bytes would be written where
   * others may write by now.
   */
  end(): Promise<void> {
    this.#isEnding = true;
    if (this.#readsDirectly) {
      this.#socket.pause();
      this.#outbox.end(() => this.#socket.destroySoon());
      return this.#closed.promise;
    }
    this.resume();
    this.#outbox.end(() =>
      this.#socket.end(() => {
        this.#linger = setTimeout(() => this.#socket.destroy(), LINGER_MS).unref();
      }),
    );
    return this.#closed.promise;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Lets the process end while the link is open. */
  unref(): void {
    this.#socket.unref();
  }

  readonly #feed = (chunk: Uint8Array): void => {
    if (!this.#isEnding) this.#reader.feed(chunk);
  };

  #listen(): void {
    this.#socket.on("error", (error: NodeJS.ErrnoException) =>
      this.#close(`its connection failed (${error.code ?? error.message})`),
    );
    // The link ends at once, even if bytes still wait, because an end that has closed its stream
    // reads nothing any more.
    this.#socket.on("end", this.#ended).on("close", this.#ended);
  }

  readonly #ended = (): void => {
    const where = this.#reader.isInFrame ? " in the middle of a frame" : "";
    this.#close(`its connection was closed${where}`);
  };

  #target(): Uint8Array {
    const direct = this.#isEnding ? undefined : this.#reader.direct;
    this.#readsDirectly = direct !== undefined && direct.byteLength >= DIRECT_BYTES;
    if (direct !== undefined && this.#readsDirectly) return direct;
    return this.#isEnding ? this.#staging : this.#staging.subarray(0, this.#reader.between);
  }

  #read(count: number, buffer: Uint8Array): boolean {
    if (this.#isEnding) return true;
    if (buffer.buffer === this.#staging.buffer) this.#reader.feed(buffer.subarray(0, count));
    else this.#reader.advance(count);
    return !this.#paused;
  }

  #close(why: string, isBroken = false): void {
    if (this.#why !== undefined) return;
    this.#why = why;
    this.#isBroken = isBroken;
    this.#outbox.clear();
    clearTimeout(this.#linger);
    this.#socket.destroy();
    this.#closed.resolve();
    this.#handler?.closed(why, isBroken);
  }
}
