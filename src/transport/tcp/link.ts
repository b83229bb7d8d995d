/**
 * One stream between two ranks: a socket and the reader of its frames. The end that dialed reads payloads straight to
 * where they belong, so the receiver of data is the one that dials.
 */
import net from "node:net";
import tls from "node:tls";
import { type Address, addressError } from "./address.ts";
import { type Frame, type FrameHandler, FrameReader } from "./frame.ts";
import { sharedKey } from "./handshake.ts";
import { keepQueueShort } from "./loopback.ts";

export interface LinkHandler {
  readonly destination: FrameHandler["destination"];
  /** Of message frames, before they are complete. */
  readonly arrived?: FrameHandler["arrived"];
  readonly frame: (frame: Frame, payload: Uint8Array) => void;
  /** No more frames will come. Called once. */
  readonly closed: (why: string) => void;
}

export interface DialOptions {
  readonly address: Address;
  /** The local address to dial from. */
  readonly localAddress?: string;
  readonly token: string;
  readonly tls: boolean;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
}

const STAGING_BYTES = 2 ** 16;
/** Payloads shorter than this are not worth a read of their own. */
const DIRECT_BYTES = 2 ** 14;
/** TLS without certificates: both sides know a key made of the token. */
export const TLS_OPTIONS = {
  ciphers: "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305",
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
} as const;
export const TLS_IDENTITY = "lockstep";

export class Link {
  readonly #socket: net.Socket;
  readonly #reader: FrameReader;
  readonly #staging = new Uint8Array(STAGING_BYTES);
  #handler: LinkHandler | undefined;
  #why: string | undefined;
  #paused = false;

  /** @internal Use `Link.dial` or `Link.accept`. */
  constructor(open: (link: Link) => net.Socket) {
    this.#reader = new FrameReader({
      destination: (frame) => this.#handler?.destination(frame) ?? "sent data too early",
      arrived: (frame, from, byteLength) => this.#handler?.arrived?.(frame, from, byteLength),
      frame: (frame, payload) => this.#handler?.frame(frame, payload),
      broken: (what) => this.#close(what),
    });
    this.#socket = open(this);
    this.#socket.on("error", (error: NodeJS.ErrnoException) =>
      this.#close(`its connection failed (${error.code ?? error.message})`),
    );
    this.#socket.on("close", () => this.#close("its connection was closed"));
  }

  /** Rejects with ADDRESS, also after so long, or with the signal's reason. */
  static dial(
    { address, localAddress, token, tls: secure, signal }: DialOptions,
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
      const failed = (error: Error) => giveUp(addressError(error, address));
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
          const socket = tls.connect({
            ...place,
            ...TLS_OPTIONS,
            rejectUnauthorized: false, // there are no certificates: a wrong key ends the handshake
            checkServerIdentity: () => undefined,
            pskCallback: () => ({ psk: sharedKey(token), identity: TLS_IDENTITY }),
          });
          socket.once("secureConnect", ready);
          socket.on("data", (chunk) => self.#reader.feed(chunk));
          return socket;
        }
        const onread: net.OnReadOpts = {
          buffer: () => self.#target(),
          callback: (count, buffer) => self.#read(count, buffer),
        };
        const options: net.TcpSocketConnectOpts & { onread: net.OnReadOpts } = { ...place, onread };
        return net.connect(options).once("connect", ready);
      });
      link.#socket.setNoDelay(true).once("error", failed);
    });
  }

  static accept(socket: net.Socket): Link {
    return new Link((self) => {
      socket.setNoDelay(true);
      keepQueueShort(socket);
      socket.on("data", (chunk: Uint8Array) => self.#reader.feed(chunk));
      return socket;
    });
  }

  /** Who hears of frames from now on. */
  set handler(handler: LinkHandler) {
    this.#handler = handler;
    if (this.#why !== undefined) handler.closed(this.#why);
  }

  /** Bytes that wait to be sent. */
  get backlog(): number {
    return this.#socket.writableLength;
  }

  /** `done` is called when the bytes may be written again, or never, if the link closes before. */
  write(pieces: readonly Uint8Array[], done?: () => void): void {
    if (this.#why !== undefined) return;
    const last = pieces.length - 1;
    if (last > 0) this.#socket.cork();
    for (const [index, piece] of pieces.entries()) {
      if (index < last || done === undefined) this.#socket.write(piece);
      else this.#socket.write(piece, (error) => (error ? undefined : done()));
    }
    if (last > 0) this.#socket.uncork();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** Sends what waits, then closes. */
  end(): void {
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Does not keep the process alive. */
  unref(): void {
    this.#socket.unref();
  }

  #target(): Uint8Array {
    const direct = this.#reader.direct;
    return direct !== undefined && direct.byteLength >= DIRECT_BYTES ? direct : this.#staging;
  }

  #read(count: number, buffer: Uint8Array): boolean {
    if (buffer.buffer === this.#staging.buffer) this.#reader.feed(buffer.subarray(0, count));
    else this.#reader.advance(count);
    return !this.#paused;
  }

  #close(why: string): void {
    if (this.#why !== undefined) return;
    this.#why = why;
    this.#socket.destroy();
    this.#handler?.closed(why);
  }
}
