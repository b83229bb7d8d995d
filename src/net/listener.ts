/**
 * The listener of a rank: accepts connections, verifies that they know the token, and hands them to
 * the group that they ask for. One listener serves all generations, one after the other. A
 * connection that is not Lockstep's is closed at once.
 */
import net from "node:net";
import { LockstepError } from "../errors.ts";
import { type Address, addressError, formatAddress } from "./address.ts";
import { FRAME, type Frame } from "./frame.ts";
import { checkToken, decodeHello, type Hello, receiveStranger } from "./handshake.ts";
import { Link } from "./link.ts";
import { LinkFaults } from "./link-faults.ts";
import { Strangers } from "./strangers.ts";

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

export interface ListenOptions {
  /** An address of this machine, or a name of one. */
  readonly host: string;
  /** The port; 0 chooses any free one. Default: 0. */
  readonly port?: number;
  /** Takes the first free port of this range instead of `port`. */
  readonly ports?: PortRange | undefined;
  /** At least 16 characters. A dialer that does not know it is refused. The token is never sent. */
  readonly token: string;
  /** Whether connections are encrypted, with a key derived from the token. Default: false. */
  readonly tls?: boolean;
}

/** Accepts a link that has proved itself, or returns why not. */
export type Admit = (hello: Hello, link: Link) => string | undefined;

const HELD_MS = 60_000;
const MAX_HELD = 8192;

interface Held {
  readonly hello: Hello;
  readonly link: Link;
  readonly timer: NodeJS.Timeout;
}

export class TcpListener {
  readonly token: string;
  readonly tls: boolean;
  /** Of the links of its groups. */
  readonly faults = new LinkFaults();
  readonly #server: net.Server;
  readonly #groups = new Map<string, Admit>();
  readonly #held = new Set<Held>();
  readonly #strangers = new Strangers();
  #hasRefused = false;
  #address: Address = { host: "", port: 0 };

  /** @internal Use `listenTcp`. */
  constructor(options: ListenOptions) {
    this.token = options.token;
    this.tls = options.tls ?? false;
    this.#server = net.createServer((socket) => this.#greet(socket));
  }

  /** As host:port, with the port that was chosen. */
  get address(): string {
    return formatAddress(this.#address);
  }

  get host(): string {
    return this.#address.host;
  }

  /** @internal */
  open(host: string, port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException) => reject(addressError(error, { host, port }));
      this.#server.once("error", failed);
      this.#server.listen({ host, port, backlog: 1024 }, () => {
        this.#server.off("error", failed);
        this.#server.on("error", () => undefined);
        const bound = this.#server.address();
        this.#address = { host, port: typeof bound === "object" ? (bound?.port ?? port) : port };
        resolve();
      });
    });
  }

  /** Gives links of this group and generation to `admit`. The result ends this. @internal */
  serve(group: string, generation: number, admit: Admit): () => void {
    const key = keyOf(group, generation);
    if (this.#groups.has(key)) {
      throw new LockstepError(
        "INVALID_OPTION",
        `This process has joined generation ${generation} already.`,
      );
    }
    this.#groups.set(key, admit);
    for (const held of this.#held) {
      if (keyOf(held.hello.group, held.hello.generation) !== key) continue;
      clearTimeout(held.timer);
      this.#held.delete(held);
      this.#admit(admit, held.hello, held.link);
    }
    return () => this.#groups.delete(key);
  }

  /**
   * Whether a dialer with a different token was refused. This is only a hint, because it may have
   * been anyone. @internal
   */
  get hasRefused(): boolean {
    return this.#hasRefused;
  }

  /** Accepts no more connections. Those of groups stay open. */
  close(): void {
    for (const { link, timer } of this.#held) {
      clearTimeout(timer);
      link.destroy();
    }
    this.#strangers.close();
    this.#held.clear();
    this.#server.close();
    this.faults.end();
  }

  #greet(socket: net.Socket): void {
    this.#strangers.add(socket);
    const link = Link.accept(socket);
    let isSecured = false;
    const takes = receiveStranger(link, this, {
      secured: () => {
        isSecured = true;
      },
      refused: () => {
        this.#hasRefused = true;
      },
    });
    link.handler = {
      destination: () => "sent data before it was admitted",
      closed: () => undefined,
      frame: (frame: Frame, payload: Uint8Array) => {
        if (!isSecured) {
          if (takes(frame, payload)) this.#strangers.heard(socket);
          else link.destroy();
          return;
        }
        const hello = frame.type === FRAME.join ? decodeHello(payload) : undefined;
        if (hello === undefined) return link.destroy();
        this.#strangers.trust(socket);
        this.#known(hello, link);
      },
    };
  }

  /** Hands a link to its group, or keeps it until the group is joined. */
  #known(hello: Hello, link: Link): void {
    const admit = this.#groups.get(keyOf(hello.group, hello.generation));
    if (admit !== undefined) return this.#admit(admit, hello, link);
    if (this.#held.size >= MAX_HELD) return link.destroy();
    const timer = setTimeout(() => link.destroy(), HELD_MS);
    const held: Held = { hello, link, timer };
    this.#held.add(held);
    link.handler = {
      destination: () => "sent data before it was admitted",
      frame: () => link.destroy(),
      closed: () => {
        clearTimeout(timer);
        this.#held.delete(held);
      },
    };
  }

  #admit(admit: Admit, hello: Hello, link: Link): void {
    const refusal = admit(hello, link);
    if (refusal === undefined) {
      link.write({ type: FRAME.welcome });
      return;
    }
    link.write({ type: FRAME.refusal }, Buffer.from(refusal.slice(0, 1000)));
    void link.end();
  }
}

/**
 * Opens a listener.
 * @throws ADDRESS; INVALID_OPTION when the token is short enough to be guessed
 */
export async function listenTcp(options: ListenOptions): Promise<TcpListener> {
  const { host, port = 0, ports, token } = options;
  checkToken(token);
  const { first, last } = ports ?? { first: port, last: port };
  for (let next = first; ; next++) {
    const listener = new TcpListener(options);
    try {
      await listener.open(host, next);
      return listener;
    } catch (error) {
      const isTaken = error instanceof LockstepError && error.fields["systemCode"] === "EADDRINUSE";
      if (ports === undefined || !isTaken) throw error;
      if (next < last) continue;
      throw new LockstepError(
        "ADDRESS",
        `All ports from ${first} to ${last} of ${host} are in use.`,
        {
          hint: "Give --ports a range with a port for each worker of this machine.",
          fields: { address: host },
          cause: error,
        },
      );
    }
  }
}

function keyOf(group: string, generation: number): string {
  return `${group}\n${generation}`;
}
