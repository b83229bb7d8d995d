/**
 * The door of a rank: takes connections, makes sure that they know the token, and hands them to the group they ask for. One
 * listener serves all generations, one after the other. What is not Lockstep's is closed at once.
 */
import net from "node:net";
import { LockstepError } from "../errors.ts";
import { type Address, addressError, formatAddress } from "./address.ts";
import { FRAME, type Frame } from "./frame.ts";
import { checkToken, decodeHello, type Hello, receiveStranger } from "./handshake.ts";
import { Link } from "./link.ts";
import { Strangers } from "./strangers.ts";

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

export interface ListenOptions {
  /** One of this machine's addresses, or a name of it. */
  readonly host: string;
  /** 0, the default, for any that is free. */
  readonly port?: number;
  /** The first that is free of these ports, instead of `port`. */
  readonly ports?: PortRange;
  /** At least 16 characters. Who does not know it is refused. It never travels. */
  readonly token: string;
  /** Encrypts, with a key made of the token; false unless told. */
  readonly tls?: boolean;
}

/** Takes a link that has proved itself, or says why not. */
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

  /** host:port, with the port that was chosen. */
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

  /** Links for this group and generation go to `admit`; the result ends that. @internal */
  serve(group: string, generation: number, admit: Admit): () => void {
    const key = keyOf(group, generation);
    if (this.#groups.has(key)) {
      throw new LockstepError("INVALID_OPTION", `Generation ${generation} is joined already here.`);
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

  /** Whether someone with another token was turned away. Only a hint: it may have been anyone. @internal */
  get hasRefused(): boolean {
    return this.#hasRefused;
  }

  /** Takes no more connections. Those of groups live on. */
  close(): void {
    for (const { link, timer } of this.#held) {
      clearTimeout(timer);
      link.destroy();
    }
    this.#strangers.close();
    this.#held.clear();
    this.#server.close();
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
      destination: () => "sent data before it was let in",
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

  /** Waits for its group, if that is not joined yet. */
  #known(hello: Hello, link: Link): void {
    const admit = this.#groups.get(keyOf(hello.group, hello.generation));
    if (admit !== undefined) return this.#admit(admit, hello, link);
    if (this.#held.size >= MAX_HELD) return link.destroy();
    const timer = setTimeout(() => link.destroy(), HELD_MS);
    const held: Held = { hello, link, timer };
    this.#held.add(held);
    link.handler = {
      destination: () => "sent data before it was let in",
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
    link.end();
  }
}

/** Opens the door. Rejects with ADDRESS, and with INVALID_OPTION for a token that could be guessed. */
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
