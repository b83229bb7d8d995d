/**
 * A real S3 server for tests: OpenStack Swift with its S3 interface, as processes of its own. Where
 * it is not installed, tests that need it are skipped, and say so; `.ci/run` installs it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { userInfo } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { accessFrom, Bucket, type Environment, type Patience } from "../../src/s3/index.ts";
import { onDisk } from "./folder.ts";

/** The servers that keep things, each with a ring that says where. */
const KEEPERS = ["account", "container", "object"] as const;
const PROGRAMS = [
  "swift-ring-builder",
  "swift-proxy-server",
  ...KEEPERS.map((kind) => `swift-${kind}-server`),
];

/** For the option `skip` of a test. */
export const NO_S3 =
  !PROGRAMS.every(isInstalled) &&
  `needs OpenStack Swift: apt-get install swift-proxy ${KEEPERS.map((kind) => `swift-${kind}`).join(" ")}`;

function isInstalled(program: string): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const ACCOUNT = "lockstep";
const CREDENTIALS = { accessKey: `${ACCOUNT}:test`, secretKey: "a-secret-of-the-tests" };
const READY_MS = 60_000;
/** May list the bucket and read objects, but not write. */
export const READER = { accessKey: `${ACCOUNT}:reader`, secretKey: "another-secret" };

export class S3Server {
  readonly folder: string;
  readonly endpoint: string;
  readonly #ports: readonly number[];
  #children: ChildProcess[] = [];

  private constructor(folder: string, ports: readonly number[]) {
    this.folder = folder;
    this.#ports = ports;
    this.endpoint = `http://127.0.0.1:${ports[0]}`;
  }

  static async start(): Promise<S3Server> {
    const folder = await mkdtemp(join(onDisk(), "lockstep-s3-"));
    const server = new S3Server(folder, await freePorts(1 + KEEPERS.length));
    await server.#configure();
    await server.run();
    return server;
  }

  async #configure(): Promise<void> {
    const { folder } = this;
    const [proxy, ...ports] = this.#ports;
    await mkdir(join(folder, "srv/disk"), { recursive: true });
    const common = (port: number | undefined) => [
      "[DEFAULT]",
      "bind_ip = 127.0.0.1",
      `bind_port = ${port}`,
      "workers = 0",
      `user = ${userInfo().username}`,
      `swift_dir = ${folder}`,
      `devices = ${join(folder, "srv")}`,
      "mount_check = false",
    ];
    for (const [index, kind] of KEEPERS.entries()) {
      const port = ports[index];
      const build = (...words: string[]) =>
        execFileSync("swift-ring-builder", [`${kind}.builder`, ...words], { cwd: folder });
      build("create", "4", "1", "1");
      build(
        "add",
        "--region",
        "1",
        "--zone",
        "1",
        "--device",
        "disk",
        "--weight",
        "1",
        "--ip",
        "127.0.0.1",
        "--port",
        `${port}`,
      );
      build("rebalance");
      const parts = [...common(port), "[pipeline:main]", `pipeline = ${kind}-server`];
      const app = [`[app:${kind}-server]`, `use = egg:swift#${kind}`];
      await writeFile(join(folder, `${kind}.conf`), [...parts, ...app].join("\n"));
    }
    const filters = [
      "catch_errors",
      "cache",
      "listing_formats",
      "s3api",
      "tempauth",
      "bulk",
      "slo",
    ];
    const settings: Readonly<Record<string, readonly string[]>> = {
      // Nothing is cached, but its servers must be named.
      cache: ["memcache_servers = 127.0.0.1:1"],
      s3api: ["location = us-east-1"],
      tempauth: [
        `user_${CREDENTIALS.accessKey.replace(":", "_")} = ${CREDENTIALS.secretKey} .admin`,
        `user_${READER.accessKey.replace(":", "_")} = ${READER.secretKey}`,
      ],
    };
    const lines = [
      ...common(proxy),
      "[pipeline:main]",
      `pipeline = ${filters.join(" ")} proxy-server`,
      "[app:proxy-server]",
      "use = egg:swift#proxy",
      "account_autocreate = true",
      // A keeper that was asked before it listened is asked again at once.
      "error_suppression_interval = 0",
      "error_suppression_limit = 1000000",
      ...filters.flatMap((name) => [
        `[filter:${name}]`,
        `use = egg:swift#${name === "cache" ? "memcache" : name}`,
        ...(settings[name] ?? []),
      ]),
    ];
    await writeFile(join(folder, "proxy.conf"), lines.join("\n"));
  }

  /** Starts the programs, again after `kill`, and waits until they answer. */
  async run(): Promise<void> {
    const { folder } = this;
    this.#children = ["proxy", ...KEEPERS].map((kind) =>
      spawn(`swift-${kind}-server`, [join(folder, `${kind}.conf`)], {
        cwd: folder,
        stdio: "ignore",
      }),
    );
    const end = performance.now() + READY_MS;
    while (!(await this.#isReady())) {
      const isDead = this.#children.some(({ exitCode }) => exitCode !== null);
      if (isDead || performance.now() > end) {
        await this.kill();
        throw new Error("Swift does not run.");
      }
      await delay(100);
    }
  }

  async #isReady(): Promise<boolean> {
    try {
      await this.bucket("ready", { tries: 1, answerMs: 2000 }).put("ready", "ready");
      return true;
    } catch {
      // The bucket is missing at the first start.
    }
    const [made] = await Promise.allSettled([this.makeBucket("ready")]);
    return made.status === "fulfilled";
  }

  /** Ends the processes at once, as a crash would. Their folder stays. */
  async kill(): Promise<void> {
    const children = this.#children.filter(
      ({ exitCode, signalCode }) => exitCode === null && signalCode === null,
    );
    this.#children = [];
    await Promise.all(
      children.map(async (child) => {
        const ended = once(child, "exit");
        child.kill("SIGKILL");
        await ended;
      }),
    );
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** The environment in which programs find the server. */
  env(endpoint = this.endpoint, { accessKey, secretKey } = CREDENTIALS): Record<string, string> {
    return {
      AWS_ENDPOINT_URL_S3: endpoint,
      AWS_ACCESS_KEY_ID: accessKey,
      AWS_SECRET_ACCESS_KEY: secretKey,
      AWS_REGION: "us-east-1",
    };
  }

  bucket(name: string, patience: Partial<Patience> = {}, env: Environment = this.env()): Bucket {
    return new Bucket(name, accessFrom(env, { bucket: name, prefix: "" }), patience);
  }

  /** Makes a bucket that everybody may read. */
  async makeBucket(name: string): Promise<Bucket> {
    const patience = { tries: 1, answerMs: 2000 };
    const headers = { "x-amz-acl": "public-read" };
    await this.bucket(name, patience).request("make", { method: "PUT", key: "", headers });
    return this.bucket(name);
  }
}

/** Processes that begin at once look at different ports. */
async function freePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  for (let port = 20_000 + 10 * (process.pid % 1000); found.length < count; port++) {
    if (await canListen(port)) found.push(port);
  }
  return found;
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** A way to the server that can be made slow, silent, or cut. */
export class Way {
  readonly endpoint: string;
  /** Bytes per second that go to the server; undefined for as many as there are. */
  rate: number | undefined;
  /** Whether nothing is carried, although connections are there. */
  isSilent = false;
  /** Called before each piece that goes to the server. */
  onPiece: (bytes: number) => void = () => undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  static async to(endpoint: string): Promise<Way> {
    const { port: target } = new URL(endpoint);
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    const way = new Way(server, typeof address === "object" ? (address?.port ?? 0) : 0);
    server.on("connection", (socket) => way.#carry(socket, Number(target)));
    return way;
  }

  #carry(from: Socket, port: number): void {
    const to = connect(port, "127.0.0.1");
    for (const socket of [from, to]) {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        from.destroy();
        to.destroy();
      });
    }
    from.on("data", (piece: Buffer) => {
      this.onPiece(piece.byteLength);
      if (this.isSilent) return;
      to.write(piece);
      if (this.rate === undefined) return;
      from.pause();
      setTimeout(() => from.resume(), (1000 * piece.byteLength) / this.rate);
    });
    to.on("data", (piece: Buffer) => {
      if (!this.isSilent) from.write(piece);
    });
  }

  /** Ends all connections; new ones are possible. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.#server.close();
    this.cut();
  }
}
