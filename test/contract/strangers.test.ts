/**
 * Connections from strangers without the token: they are bounded, closed after seconds, block
 * nobody, and learn nothing to guess by.
 */
import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { decodeHeader, FRAME, HEADER_BYTES } from "../../src/net/frame.ts";
import { dialLine, type Line, listenTcp, parseAddress, serveLines } from "../../src/net/index.ts";
import { withFolder } from "../support/folder.ts";
import { agentProcess, files, rejectsWith, token } from "../support/hosts.ts";

const SILENT = 256;
const { signal } = new AbortController();

interface Silent {
  readonly socket: net.Socket;
  readonly closed: Promise<void>;
}

/** Connects, sends these bytes, and nothing more. */
function stranger(address: string, bytes: Uint8Array = new Uint8Array(0)): Promise<Silent> {
  const { host, port } = parseAddress(address);
  return new Promise((resolve) => {
    const socket = net.connect(port, host);
    const closed = new Promise<void>((end) => {
      socket.once("close", () => end());
    });
    socket.on("error", () => undefined);
    socket.resume();
    socket.once("connect", () => socket.write(bytes, () => resolve({ socket, closed })));
    void closed.then(() => resolve({ socket, closed }));
  });
}

/** The beginning of a TLS client's hello, without its end. */
const TLS_BEGINNING = Buffer.from("16030100f8010000f40303", "hex");

for (const tls of [false, true]) {
  const way = tls ? "with TLS" : "without TLS";

  test(`${way}, 256 silent connections block nobody, and all are closed`, async () => {
    const listener = await listenTcp({ host: "127.0.0.1", token, tls });
    const lines: Line[] = [];
    const stop = serveLines(listener, (line) => {
      line.handler = { message: () => undefined, closed: () => undefined };
      lines.push(line);
    });
    const silent = await Promise.all(
      Array.from({ length: SILENT }, (_, index) =>
        stranger(listener.address, index % 2 === 0 ? undefined : TLS_BEGINNING),
      ),
    );
    const line = await dialLine({
      address: listener.address,
      token,
      tls,
      deadlineMs: 4000,
      signal,
    });
    line.close();
    await Promise.all(silent.map(({ closed }) => closed));
    for (const one of lines) one.close();
    stop();
    listener.close();
  });

  test(`${way}, SIGTERM ends an agent that strangers are connected to`, () =>
    withFolder(files, async (folder) => {
      const words = ["--listen", "0", ...(tls ? ["--tls"] : [])];
      const agent = await agentProcess(folder, { words });
      const silent = await Promise.all(
        [undefined, TLS_BEGINNING].map((bytes) => stranger(agent.host, bytes)),
      );
      await agent.end();
      await Promise.all(silent.map(({ closed }) => closed));
    }));
}

/** Listens, and keeps what comes. Answers each connection with these bytes. */
async function ear(answer: Uint8Array = new Uint8Array(0)) {
  const heard: Buffer[] = [];
  const open: net.Socket[] = [];
  const server = net.createServer((socket) => {
    open.push(socket);
    socket.on("error", () => undefined);
    socket.on("data", (bytes: Buffer) => heard.push(bytes));
    socket.write(answer);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    heard: () => Buffer.concat(heard),
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

test("a launcher with TLS whose handshake stalls sends no proof", async () => {
  const mute = await ear();
  const dialing = dialLine({ address: mute.address, token, tls: true, deadlineMs: 1500, signal });
  await rejectsWith(dialing, "DEADLINE", mute.address);
  assertOnlyHellos(mute.heard());
  mute.close();
});

/** A header, a point that looks random without the token, and whether TLS is used. */
const HELLO_BYTES = HEADER_BYTES + 33;

function assertOnlyHellos(heard: Buffer): void {
  assert.ok(heard.byteLength > 0 && heard.byteLength % HELLO_BYTES === 0, `${heard.byteLength}`);
  for (let at = 0; at < heard.byteLength; at += HELLO_BYTES) {
    const head = decodeHeader(heard.subarray(at, at + HEADER_BYTES));
    assert.ok(typeof head === "object" && head.type === FRAME.hello, String(head));
  }
}

test("an end without the token gets public keys and no proof of the token, whether it listens or connects", async () => {
  const mute = await ear();
  await rejectsWith(
    dialLine({ address: mute.address, token, deadlineMs: 300, signal }),
    "DEADLINE",
  );
  const hello = mute.heard();
  assertOnlyHellos(hello);
  mute.close();

  const listener = await listenTcp({ host: "127.0.0.1", token });
  const { host, port } = parseAddress(listener.address);
  const answered = await new Promise<Buffer>((resolve) => {
    const socket = net.connect(port, host, () => socket.write(hello.subarray(0, HELLO_BYTES)));
    socket.once("data", (bytes: Buffer) => {
      socket.destroy();
      resolve(bytes);
    });
  });
  const answer = decodeHeader(answered.subarray(0, HEADER_BYTES));
  assert.ok(typeof answer === "object" && answer.type === FRAME.challenge, String(answer));
  assert.equal(answered.byteLength, HELLO_BYTES, "a point, and nothing else");
  listener.close();
});

test("a short token is refused on both sides, and the error says how to make one", async () => {
  const short = "fifteen letters";
  const says = ["16 or more", "openssl rand -hex 16 makes one"];
  await rejectsWith(listenTcp({ host: "127.0.0.1", token: short }), "INVALID_OPTION", ...says);
  const dialing = dialLine({ address: "127.0.0.1:1", token: short, deadlineMs: 100, signal });
  await rejectsWith(dialing, "INVALID_OPTION", ...says);
});
