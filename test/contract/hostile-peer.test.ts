/**
 * A rank that knows the token and sends invalid data of many kinds: the other rank ends at once and
 * names it, long before a deadline.
 */
import assert from "node:assert/strict";
import net from "node:net";
import { describe, test } from "node:test";
import { LockstepError } from "../../src/errors.ts";
import { dialPeer } from "../../src/net/dial.ts";
import { FRAME, type Frame } from "../../src/net/frame.ts";
import { listenTcp, parseAddress } from "../../src/net/index.ts";
import type { Link } from "../../src/net/link.ts";
import { joinTcp, type Transport } from "../../src/transport/index.ts";
import { EAGER_BYTES, PIECE_BYTES } from "../../src/transport/tcp/stripes.ts";

const token = "a token of hostile peers";
const STREAMS = 2;
/** So long that a test cannot end by it: what is wrong must be found by itself. */
const SILENCE_MS = 60_000;
/** For what only the silence of a stream shows, or what it sends not to be silent. */
const SHORT_SILENCE_MS = 2000;
const LARGE = 3 * PIECE_BYTES;
const small = new Uint8Array(100);
const half = LARGE / 2;

/**
 * The hostile rank 1: the links that take its messages, and the links that take what it asks for.
 */
interface Hostile {
  readonly data: readonly Link[];
  readonly asks: readonly Link[];
}

async function withHostile(
  silenceMs: number,
  body: (victim: Transport, hostile: Hostile) => Promise<void>,
): Promise<void> {
  const host = "127.0.0.1";
  const [listener, own] = await Promise.all([0, 1].map(() => listenTcp({ host, token })));
  assert.ok(listener !== undefined && own !== undefined);
  const [data, asks]: [Link[], Link[]] = [[], []];
  const quiet = { destination: () => new Uint8Array(PIECE_BYTES), frame() {}, closed() {} };
  const admitted = new Promise<void>((resolve) => {
    own.serve("run", 0, ({ stream }, link) => {
      data[stream] = link;
      link.handler = quiet;
      if (Object.keys(data).length === STREAMS) resolve();
      return undefined;
    });
  });
  const { signal } = new AbortController();
  const dialed = [0, 1].map((stream) =>
    dialPeer({
      address: parseAddress(listener.address),
      token,
      tls: false,
      hello: { group: "run", generation: 0, size: 2, from: 1, to: 0, stream },
      deadlineMs: 5000,
      signal,
      welcomed: (link) => {
        asks[stream] = link;
        link.handler = quiet;
      },
    }),
  );
  const addresses = [listener.address, own.address];
  const joined = joinTcp({ listener, addresses, rank: 0, size: 2, silenceMs });
  const [victim] = await Promise.all([joined, admitted, ...dialed]);
  try {
    await body(victim, { data, asks });
  } finally {
    await victim.close();
    for (const link of [...data, ...asks]) link.destroy();
    listener.close();
    own.close();
  }
}

interface Kind {
  readonly name: string;
  readonly send: (hostile: Hostile) => void;
  /** What the victim waits for: bytes to receive, or to send. */
  readonly receives?: number;
  readonly sends?: number;
  readonly silenceMs?: number;
}

const message = (sequence: number, rest: Partial<Frame> = {}) =>
  ({ type: FRAME.message, sequence, ...rest }) as const;
const eager = (link: Link | undefined, sequence: number, bytes = small, rest = {}) =>
  link?.write(message(sequence, { total: bytes.byteLength, ...rest }), bytes);
const piece = (link: Link | undefined, offset: number, length: number, rest: Partial<Frame> = {}) =>
  link?.write(message(0, { total: LARGE, offset, ...rest }), new Uint8Array(length));
const offer = (link: Link | undefined, total = LARGE, sequence = 0) =>
  link?.write({ type: FRAME.offer, sequence, total });
const credit = (link: Link | undefined, total = LARGE, sequence = 0) =>
  link?.write({ type: FRAME.credit, sequence, total });
const ping = (link: Link | undefined) => link?.write({ type: FRAME.ping });

const receivesSmall = { receives: small.byteLength };
const receivesLarge = { receives: LARGE };
const sendsLarge = { sends: LARGE };

const KINDS: readonly Kind[] = [
  { name: "a later message first", ...receivesSmall, send: ({ data }) => eager(data[0], 1) },
  {
    name: "a message twice",
    receives: 200,
    send: ({ data }) => {
      eager(data[0], 0, new Uint8Array(200));
      eager(data[0], 0, new Uint8Array(200));
    },
  },
  { name: "a message too short", receives: 200, send: ({ data }) => eager(data[0], 0) },
  { name: "a message too long", receives: 50, send: ({ data }) => eager(data[0], 0) },
  {
    name: "a message on the second stream",
    ...receivesSmall,
    send: ({ data }) => eager(data[1], 0),
  },
  { name: "a message the wrong way", ...receivesSmall, send: ({ asks }) => eager(asks[0], 0) },
  {
    name: "a message in parts that are too small",
    ...receivesSmall,
    send: ({ data }) => data[0]?.write(message(0, { total: 100 }), new Uint8Array(60)),
  },
  {
    name: "a part of nothing",
    ...receivesSmall,
    send: ({ data }) => data[0]?.write(message(0, { total: 100, offset: 50 })),
  },
  {
    name: "a large message where a small one is due",
    ...receivesSmall,
    send: ({ data }) => offer(data[0]),
  },
  {
    name: "a small message where a large one is due",
    ...receivesLarge,
    send: ({ data }) => eager(data[0], 0),
  },
  {
    name: "an offer of another length",
    ...receivesLarge,
    send: ({ data }) => offer(data[0], LARGE + 4),
  },
  { name: "an offer out of turn", ...receivesLarge, send: ({ data }) => offer(data[0], LARGE, 1) },
  {
    name: "an offer of a small message",
    ...receivesSmall,
    send: ({ data }) => offer(data[0], EAGER_BYTES),
  },
  {
    name: "an offer twice",
    ...receivesLarge,
    send: ({ data }) => {
      offer(data[0]);
      offer(data[0]);
    },
  },
  { name: "an offer on the second stream", ...receivesLarge, send: ({ data }) => offer(data[1]) },
  {
    name: "a large message unasked",
    ...receivesSmall,
    send: ({ data }) => piece(data[0], 0, PIECE_BYTES),
  },
  {
    name: "the second part first",
    ...receivesLarge,
    send: ({ data }) => piece(data[0], PIECE_BYTES, half - PIECE_BYTES),
  },
  { name: "a part too short", ...receivesLarge, send: ({ data }) => piece(data[0], 0, 1000) },
  {
    name: "a part twice",
    ...receivesLarge,
    send: ({ data }) => {
      piece(data[0], 0, PIECE_BYTES);
      piece(data[0], 0, PIECE_BYTES);
    },
  },
  {
    name: "the part of the other stream",
    ...receivesLarge,
    send: ({ data }) => piece(data[1], 0, PIECE_BYTES),
  },
  {
    name: "a message that is broken off",
    ...receivesLarge,
    send: ({ data }) => {
      piece(data[0], 0, PIECE_BYTES);
      ping(data[0]);
    },
  },
  {
    name: "a message within another",
    ...receivesLarge,
    send: ({ data }) => {
      piece(data[0], 0, PIECE_BYTES);
      piece(data[0], 0, PIECE_BYTES, { channel: 3 });
    },
  },
  {
    name: "another length in the middle",
    ...receivesLarge,
    send: ({ data }) => {
      piece(data[0], 0, PIECE_BYTES);
      piece(data[0], PIECE_BYTES, half - PIECE_BYTES, { total: LARGE + 64 });
    },
  },
  {
    name: "a credit of another length",
    ...sendsLarge,
    send: ({ asks }) => credit(asks[0], LARGE + 4),
  },
  {
    name: "a credit twice",
    ...sendsLarge,
    send: ({ asks }) => {
      credit(asks[0], LARGE, 5);
      credit(asks[0], LARGE, 5);
    },
  },
  {
    name: "a credit for a small message",
    ...sendsLarge,
    send: ({ asks }) => credit(asks[0], 100, 1),
  },
  { name: "a credit on the wrong stream", ...sendsLarge, send: ({ asks }) => credit(asks[1]) },
  { name: "a credit the wrong way", ...receivesLarge, send: ({ data }) => credit(data[0]) },
  ...(["hello", "challenge", "proof", "welcome", "refusal"] as const).map((name) => ({
    name: `a ${name} after the handshake`,
    ...receivesSmall,
    send: ({ data }: Hostile) => data[0]?.write({ type: FRAME[name] }),
  })),
  {
    name: "a message after a goodbye",
    ...receivesSmall,
    send: ({ data }) => {
      data[0]?.write({ type: FRAME.bye });
      eager(data[0], 0);
    },
  },
  {
    name: "a goodbye on one stream only",
    ...receivesSmall,
    silenceMs: SHORT_SILENCE_MS,
    send: ({ data, asks }) => {
      data[1]?.write({ type: FRAME.bye });
      const timer = setInterval(() => {
        if (data[0]?.isClosed !== false) clearInterval(timer);
        for (const link of [data[0], ...asks]) ping(link);
      }, 20);
    },
  },
  {
    name: "a report that cannot be read",
    ...receivesSmall,
    send: ({ data }) => data[0]?.write({ type: FRAME.abort }, Buffer.from("{")),
  },
  {
    name: "a ping with contents",
    ...receivesSmall,
    send: ({ data }) => data[0]?.write({ type: FRAME.ping }, small),
  },
];

describe("a hostile rank", { concurrency: 8 }, () => {
  for (const { name, send, receives, sends, silenceMs = SILENCE_MS } of KINDS) {
    test(name, () =>
      withHostile(silenceMs, async (victim, hostile) => {
        const waiting =
          receives === undefined
            ? victim.send(1, new Uint8Array(sends ?? 0))
            : victim.receive(1, new Uint8Array(receives));
        // A second receive waits for a message that can only be missed after the first.
        const after = waiting?.then(() => victim.receive(1, new Uint8Array(1)));
        send(hostile);
        await assert.rejects(after ?? Promise.resolve(), namesTheHostile);
      }),
    );
  }
});

/**
 * Ways to end a stream within a frame. The sender keeps the other direction open and reads nothing.
 */
const ENDINGS: Readonly<Record<string, (raw: net.Socket) => void>> = {
  "ends a stream": (raw) => raw.end(),
  "resets a stream": (raw) => raw.resetAndDestroy(),
};

describe("a rank that is gone in the middle of a frame", { concurrency: 8 }, () => {
  for (const [name, end] of Object.entries(ENDINGS)) {
    test(`a rank that ${name} is found at once, not after the silence limit`, async () => {
      const listeners = await Promise.all(
        [0, 1].map(() => listenTcp({ host: "127.0.0.1", token })),
      );
      const addresses = listeners.map(({ address }) => address);
      const door = await doorTo(addresses[1] ?? "");
      const ranks = await Promise.all(
        listeners.map((listener, rank) =>
          joinTcp({
            listener,
            addresses: rank === 0 ? [addresses[0] ?? "", door.address] : addresses,
            rank,
            size: 2,
            silenceMs: SILENCE_MS,
          }),
        ),
      );
      const [victim, other] = ranks as [Transport, Transport];
      try {
        const waits = victim.receive(1, new Uint8Array(100));
        door.change((bytes, near) => {
          near.write(bytes.subarray(0, 100), () => end(near));
          return [];
        });
        const from = performance.now();
        void other.send(0, new Uint8Array(100));
        await assert.rejects(waits ?? Promise.resolve(), (error: unknown) => {
          assert.ok(error instanceof LockstepError, String(error));
          assert.deepEqual([error.code, error.fields["peer"]], ["PEER_LOST", 1], error.message);
          if (name === "ends a stream") assert.match(error.message, /in the middle of a frame/);
          return true;
        });
        assert.ok(performance.now() - from < 5000);
      } finally {
        await Promise.all(ranks.map((rank) => rank.close()));
        door.close();
        for (const listener of listeners) listener.close();
      }
    });
  }
});

function namesTheHostile(error: unknown): boolean {
  assert.ok(error instanceof LockstepError, String(error));
  assert.deepEqual([error.code, error.fields["peer"]], ["PROTOCOL", 1], error.message);
  return true;
}

/** @param near the socket that the bytes go to */
type Change = (bytes: Buffer, near: net.Socket) => readonly Buffer[];

interface Door {
  readonly address: string;
  /** Changes what goes through from now on, in the direction away from the dialer. */
  change(how: Change): void;
  close(): void;
}

/** Opens a door between two ranks, as someone on the network could. */
async function doorTo(address: string): Promise<Door> {
  const { host, port } = parseAddress(address);
  let change: Change = (bytes) => [bytes];
  const open = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (near) => {
    const far = net.connect({ port, host, allowHalfOpen: true });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
    near.on("data", (bytes) => far.write(bytes));
    far.on("data", (bytes: Buffer) => {
      for (const part of change(bytes, near)) near.write(part);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    change: (how) => {
      change = how;
    },
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

/** Only the frames that follow show it; the other rank sends them to be heard in time. */
const HOLDS_BACK = "holds the end of a frame back";

/** What someone in the middle, who does not know the token, does to the next bytes. */
const MIDDLE: Readonly<Record<string, (bytes: Buffer) => readonly Buffer[]>> = {
  "alters a value": (bytes) => [flipped(bytes, bytes.byteLength - 20)],
  "alters a header": (bytes) => [flipped(bytes, 5)],
  "alters a tag": (bytes) => [flipped(bytes, bytes.byteLength - 1)],
  "repeats a frame": (bytes) => [bytes, bytes],
  "leaves bytes out": (bytes) => [bytes.subarray(0, 60), bytes.subarray(70)],
  [HOLDS_BACK]: (bytes) => [bytes.subarray(0, 100)],
  "adds bytes": (bytes) => [Buffer.alloc(100, 7), bytes],
  "swaps two frames": (bytes) => [bytes.subarray(156 + 16), bytes.subarray(0, 156 + 16)],
};

describe("someone in the middle", { concurrency: 8 }, () => {
  for (const [name, how] of Object.entries(MIDDLE)) {
    test(`someone in the middle who ${name} is found at once`, async () => {
      const listeners = await Promise.all(
        [0, 1].map(() => listenTcp({ host: "127.0.0.1", token })),
      );
      const addresses = listeners.map(({ address }) => address);
      const door = await doorTo(addresses[1] ?? "");
      const ranks = await Promise.all(
        listeners.map((listener, rank) =>
          joinTcp({
            listener,
            addresses: rank === 0 ? [addresses[0] ?? "", door.address] : addresses,
            rank,
            size: 2,
            silenceMs: name === HOLDS_BACK ? SHORT_SILENCE_MS : SILENCE_MS,
          }),
        ),
      );
      const [victim, other] = ranks as [Transport, Transport];
      try {
        const into = [new Uint8Array(100), new Uint8Array(100)];
        const waits = into.map(async (bytes) => victim.receive(1, bytes));
        door.change(how);
        for (const bytes of into) void other.send(0, bytes);
        await assert.rejects(
          Promise.all([...waits, victim.receive(1, new Uint8Array(1))]),
          namesTheHostile,
        );
      } finally {
        await Promise.all(ranks.map((rank) => rank.close()));
        door.close();
        for (const listener of listeners) listener.close();
      }
    });
  }
});

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}
