/**
 * Someone in the middle of two ranks who can change, repeat, leave out, exchange and reflect what
 * is sent, and has no token.
 */
import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { dialLine, listenTcp, parseAddress, serveLines } from "../../src/net/index.ts";
import { joinTcp, type Transport } from "../../src/transport/index.ts";

const token = "a token for the middle";
const HEADER_BYTES = 40;
const TAG_BYTES = 16;
/** The offset of a payload: header and payload are each followed by a tag. */
const PAYLOAD = HEADER_BYTES + TAG_BYTES;
const FRAME_MESSAGE = 1;

/** What the man in the middle does with the frames of one direction, as they are on the wire. */
type Meddle = (frame: Buffer, send: (bytes: Uint8Array) => void) => void;

/**
 * Opens a door before an address. The frames of the end that was dialed go through `meddle`, from
 * its first message on.
 */
async function middle(address: string, meddle: Meddle) {
  const sockets: net.Socket[] = [];
  const server = net.createServer((near) => {
    const { host, port } = parseAddress(address);
    const far = net.connect(port, host);
    sockets.push(near, far);
    near.on("data", (bytes) => far.write(bytes));
    let left = Buffer.alloc(0);
    let isSealed = false;
    far.on("data", (bytes) => {
      left = Buffer.concat([left, bytes]);
      for (;;) {
        if (left.byteLength < HEADER_BYTES) return;
        const payload = left.readUInt32LE(4);
        // The challenge and the proof of the end that was dialed come before there are tags.
        const tags = isSealed ? (payload > 0 ? 2 : 1) * TAG_BYTES : 0;
        const byteLength = HEADER_BYTES + payload + tags;
        if (left.byteLength < byteLength) return;
        const frame = left.subarray(0, byteLength);
        left = left.subarray(byteLength);
        const type = frame[3];
        if (type === 18) isSealed = true;
        if (type === FRAME_MESSAGE) meddle(Buffer.from(frame), (piece) => near.write(piece));
        else near.write(frame);
      }
    });
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => undefined);
      one.on("close", () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Rank 0 reads through the middle what rank 1 sends. */
async function withMiddle(
  meddle: Meddle,
  body: (reader: Transport, sender: Transport) => Promise<void>,
): Promise<void> {
  const listeners = await Promise.all([0, 1].map(() => listenTcp({ host: "127.0.0.1", token })));
  const real = listeners.map(({ address }) => address);
  const door = await middle(real[1] ?? "", meddle);
  try {
    const joined = await Promise.all(
      listeners.map((listener, rank) =>
        joinTcp({
          listener,
          addresses: rank === 0 ? [real[0] ?? "", door.address] : real,
          rank,
          size: 2,
          streams: 1,
          deadlineMs: 5000,
        }),
      ),
    );
    const [reader, sender] = joined;
    assert.ok(reader !== undefined && sender !== undefined);
    await body(reader, sender);
    await Promise.all(joined.map((one) => one.close()));
  } finally {
    for (const listener of listeners) listener.close();
    door.close();
  }
}

/** Exchanges two messages, of which the second is long enough to be asked for first. */
async function exchange(reader: Transport, sender: Transport): Promise<Uint8Array[]> {
  const received = [new Uint8Array(1000), new Uint8Array(300_000)];
  const sending = received.map(async (into, index) =>
    sender.send(0, new Uint8Array(into.byteLength).fill(index + 1)),
  );
  const receiving = received.map(async (into) => reader.receive(1, into));
  const settled = await Promise.allSettled([...receiving, ...sending]);
  const failure = settled.find((one) => one.status === "rejected");
  if (failure !== undefined) throw failure.reason as Error;
  return received;
}

test("frames that are passed on unchanged arrive", () =>
  withMiddle(
    (frame, send) => send(frame),
    async (reader, sender) => {
      const received = await exchange(reader, sender);
      assert.ok(received.every((bytes, index) => bytes.every((byte) => byte === index + 1)));
    },
  ));

const held: Buffer[] = [];
const MEDDLING: Readonly<Record<string, Meddle>> = {
  "a bit of a payload": (frame, send) => {
    frame[PAYLOAD + 5] = (frame[PAYLOAD + 5] ?? 0) ^ 1;
    send(frame);
  },
  "a number of a header": (frame, send) => {
    frame.writeDoubleLE(7, 8);
    send(frame);
  },
  "a bit of a tag": (frame, send) => {
    frame[frame.byteLength - 1] = (frame.at(-1) ?? 0) ^ 128;
    send(frame);
  },
  "a frame sent twice": (frame, send) => {
    send(frame);
    send(frame);
  },
  "two frames in the other order": (frame, send) => {
    held.push(frame);
    if (held.length < 2) return;
    for (const one of held.splice(0).reverse()) send(one);
  },
  "a frame left out": (frame, send) => {
    held.push(frame);
    if (held.length > 1) send(frame);
  },
};

for (const [what, meddle] of Object.entries(MEDDLING)) {
  test(`${what}: the group ends with PROTOCOL, naming the rank`, () =>
    withMiddle(meddle, async (reader, sender) => {
      held.length = 0;
      await assert.rejects(exchange(reader, sender), { code: "PROTOCOL", fields: { peer: 1 } });
      await assert.rejects(async () => reader.receive(1, new Uint8Array(1)), { code: "PROTOCOL" });
    }));
}

test("a line whose messages are changed on the way ends, and the change is not delivered", async () => {
  const listener = await listenTcp({ host: "127.0.0.1", token });
  const endServing = serveLines(listener, (line) => {
    line.handler = { message: () => line.send({ answer: 1 }), closed: () => undefined };
  });
  const door = await middle(listener.address, (frame, send) => {
    frame.write("2", PAYLOAD + '{"answer":'.length);
    send(frame);
  });
  try {
    const { signal } = new AbortController();
    const line = await dialLine({ address: door.address, token, deadlineMs: 5000, signal });
    const why = await new Promise<string>((resolve, reject) => {
      line.handler = { message: () => reject(new Error("heard it")), closed: resolve };
      line.send({ question: 1 });
    });
    assert.match(why, /changed on its way/);
  } finally {
    endServing();
    listener.close();
    door.close();
  }
});

test("an end that sends our own bytes back is refused, and so is one without the token", async () => {
  const { signal } = new AbortController();
  const echo = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (bytes) => {
      const reflected = Buffer.from(bytes);
      if (reflected[3] === 16) reflected[3] = 17; // its hello serves as our challenge
      socket.write(reflected);
    });
  });
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  const address = `127.0.0.1:${(echo.address() as net.AddressInfo).port}`;
  try {
    await assert.rejects(dialLine({ address, token, deadlineMs: 5000, signal }), {
      code: "PROTOCOL",
    });
  } finally {
    echo.close();
  }
  const listener = await listenTcp({ host: "127.0.0.1", token: "another token altogether" });
  try {
    await assert.rejects(dialLine({ address: listener.address, token, deadlineMs: 5000, signal }), {
      code: "UNAUTHORIZED",
    });
  } finally {
    listener.close();
  }
});
