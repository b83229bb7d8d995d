/**
 * One stream between two ranks: a socket and the reader of its frames. The end that dialed reads payloads straight to
 * where they belong, so the receiver of data is the one that dials.
 */
import net from "node:net";
import tls from "node:tls";
import { type Address, addressError } from "./address.ts";
import type { Side } from "./exchange.ts";
import { type Frame, type FrameHandler, FrameReader } from "./frame.ts";
import { keepQueueShort } from "./loopback.ts";
import type { Seal } from "./seal.ts";

export interface LinkHandler {
  readonly destination: FrameHandler["destination"];
  /** Of message frames, before they are complete. */
  readonly arrived?: FrameHandler["arrived"];
  readonly frame: (frame: Frame, payload: Uint8Array) => void;
  /** No more frames will come. Called once. @param isTheirs whether the other end sent what it must not */
  readonly closed: (why: string, isTheirs: boolean) => void;
}

export interface DialOptions {
  readonly address: Address;
  /** The local address to dial from. */
  readonly localAddress?: string;
  /** Whether it goes on as TLS: then payloads are not read straight to where they belong. */
  readonly tls: boolean;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
}

const STAGING_BYTES = 2 ** 16;
/** Payloads shorter than this are not worth a read of their own. */
const DIRECT_BYTES = 2 ** 14;
/** TLS without certificates: both sides have a key of this connection alone. */
const TLS_OPTIONS = {
  ciphers: "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305",
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
} as const;
const TLS_IDENTITY = "lockstep";

/** Node.js takes `pskCallback` here too, as its own server uses it; its types do not say so. */
function serverOptions(psk: Buffer): tls.TLSSocketOptions {
  const options: tls.TLSSocketOptions & Pick<tls.TlsOptions, "pskCallback"> = {
    ...TLS_OPTIONS,
    isServer: true,
    pskCallback: () => psk,
  };
  return options;
}

export class Link {
  #socket: net.Socket;
  #seal: Seal | undefined;
  readonly #reader: FrameReader;
  readonly #staging = new Uint8Array(STAGING_BYTES);
  #handler: LinkHandler | undefined;
  #why: string | undefined;
  #isTheirs = false;
  #paused = false;

  /** @internal Use `Link.dial` or `Link.accept`. */
  constructor(open: (link: Link) => net.Socket) {
    this.#reader = new FrameReader({
      destination: (frame) => this.#handler?.destination(frame) ?? "sent data too early",
      arrived: (frame, from, byteLength) => this.#handler?.arrived?.(frame, from, byteLength),
      frame: (frame, payload) => this.#handler?.frame(frame, payload),
      broken: (what) => this.#close(what, true),
    });
    this.#socket = open(this);
    this.#listen();
  }

  /** Rejects with ADDRESS, also after so long, or with the signal's reason. */
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
    });
  }

  static accept(socket: net.Socket): Link {
    return new Link((self) => {
      socket.setNoDelay(true);
      keepQueueShort(socket);
      return socket.on("data", self.#feed);
    });
  }

  /** Seals every frame from now on, and takes only those that are sealed so. */
  seal(out: Seal, into: Seal): void {
    this.#seal = out;
    this.#reader.unseal(into);
  }

  /** Goes on as TLS with this key. Closes where that fails. */
  startTls(side: Side, key: Uint8Array, done: () => void): void {
    const plain = this.#socket;
    plain.removeAllListeners("data").removeAllListeners("close");
    const psk = Buffer.from(key);
    this.#socket =
      side === "dialer"
        ? tls.connect({
            ...TLS_OPTIONS,
            socket: plain,
            rejectUnauthorized: false, // there are no certificates: a wrong key ends the handshake
            checkServerIdentity: () => undefined,
            pskCallback: () => ({ psk, identity: TLS_IDENTITY }),
          })
        : new tls.TLSSocket(plain, serverOptions(psk));
    this.#listen();
    this.#socket.once(side === "dialer" ? "secureConnect" : "secure", done);
    this.#socket.on("data", this.#feed);
  }

  /** Who hears of frames from now on. */
  set handler(handler: LinkHandler) {
    this.#handler = handler;
    if (this.#why !== undefined) handler.closed(this.#why, this.#isTheirs);
  }

  /** Bytes that wait to be sent. */
  get backlog(): number {
    return this.#socket.writableLength;
  }

  /** Writes one frame. `done` is called when its bytes may be written again, or never, if the link closes before. */
  write(frame: readonly Uint8Array[], done?: () => void): void {
    if (this.#why !== undefined) return;
    for (const piece of frame) this.#seal?.add(piece);
    const pieces = this.#seal === undefined ? frame : [...frame, this.#seal.tag()];
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

  readonly #feed = (chunk: Uint8Array): void => this.#reader.feed(chunk);

  #listen(): void {
    this.#socket.on("error", (error: NodeJS.ErrnoException) =>
      this.#close(`its connection failed (${error.code ?? error.message})`),
    );
    this.#socket.on("close", () => this.#close("its connection was closed"));
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

  #close(why: string, isTheirs = false): void {
    if (this.#why !== undefined) return;
    this.#why = why;
    this.#isTheirs = isTheirs;
    this.#socket.destroy();
    this.#handler?.closed(why, isTheirs);
  }
}
