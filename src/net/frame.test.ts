import assert from "node:assert/strict";
import { test } from "node:test";
import { Channels } from "../transport/tcp/channels.ts";
import {
  encodeHeader,
  FRAME,
  type Frame,
  FrameReader,
  HEADER_BYTES,
  MAX_CONTROL_BYTES,
  MAX_FRAME_BYTES,
  sealFrame,
} from "./frame.ts";
import { Seal } from "./seal.ts";

/** Mulberry32. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) % below;
  };
}

interface Sink {
  readonly reader: FrameReader;
  readonly frames: Frame[];
  readonly broken: string[];
}

function sink(channels = new Channels()): Sink {
  const frames: Frame[] = [];
  const broken: string[] = [];
  const reader = new FrameReader({
    destination: (frame) => channels.place(frame),
    frame: (frame) => {
      frames.push(frame);
      if (frame.type === FRAME.message) channels.placed(frame);
    },
    broken: (what) => broken.push(what),
  });
  return { reader, frames, broken };
}

function message(payload: Uint8Array, given: Partial<Frame> = {}): Uint8Array {
  const head = encodeHeader({ type: FRAME.message, length: payload.byteLength, ...given });
  return Buffer.concat([head, payload]);
}

test("a stream that is cut anywhere gives the same messages", () => {
  const random = randomNumbers(1);
  const sent = Array.from({ length: 20 }, (_, index) => Buffer.alloc(random(300), index));
  const stream = Buffer.concat(sent.map((bytes, sequence) => message(bytes, { sequence })));
  for (let round = 0; round < 50; round++) {
    const channels = new Channels();
    const received = sent.map(({ byteLength }) => new Uint8Array(byteLength));
    for (const into of received) {
      channels.post(0, {
        into,
        done: () => undefined,
        failed: (what) => assert.fail(String(what)),
      });
    }
    const { reader, broken } = sink(channels);
    for (let at = 0; at < stream.byteLength; ) {
      const end = at + 1 + random(100);
      reader.feed(stream.subarray(at, end));
      at = end;
    }
    assert.deepEqual(broken, []);
    for (const [index, into] of received.entries()) assert.ok(sent[index]?.equals(into));
  }
});

test("100,000 random and mutated frames neither crash nor take memory", () => {
  const random = randomNumbers(2);
  let refused = 0;
  let state = sink();
  const before = process.memoryUsage().arrayBuffers;
  for (let round = 0; round < 100_000; round++) {
    if (state.broken.length > 0) {
      refused += 1;
      state = sink();
    }
    const types = Object.values(FRAME);
    const bytes = message(Buffer.alloc(random(64)), {
      type: types[random(types.length)] as Frame["type"],
      sequence: random(3),
      channel: random(2),
      total: random(4) === 0 ? random(2 ** 31) : 64,
    });
    for (let change = random(4); change > 0; change--) {
      bytes[random(bytes.byteLength)] = random(256);
    }
    if (random(10) === 0) bytes.subarray(0, HEADER_BYTES).fill(random(256));
    state.reader.feed(
      bytes.subarray(0, random(8) === 0 ? random(bytes.byteLength + 1) : undefined),
    );
  }
  assert.ok(refused > 10_000, "most of them are refused");
  assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 28);
});

test("the lengths that a header claims are bounded", () => {
  const refuse = (frame: Partial<Frame> & Pick<Frame, "type">, expected: RegExp) => {
    const { reader, broken } = sink();
    reader.feed(encodeHeader(frame));
    assert.match(broken[0] ?? "", expected);
  };
  const message = { type: FRAME.message } as const;
  refuse({ ...message, length: MAX_FRAME_BYTES + 1 }, /impossible/);
  refuse({ ...message, length: 8, total: 4 }, /impossible/);
  refuse({ ...message, length: 8, total: 8, offset: 1 }, /impossible/);
  refuse({ ...message, length: 8, channel: -1 }, /impossible/);
  refuse({ ...message, length: 8, sequence: 0.5 }, /impossible/);
  refuse({ ...message, length: 8, total: Number.NaN }, /impossible/);
  refuse({ ...message, length: 8, total: 2 ** 30 }, /not expected/);
  refuse({ ...message, length: 8, sequence: 1e9 }, /out of turn/);
  refuse({ type: FRAME.hello, length: MAX_CONTROL_BYTES + 1 }, /impossible/);
  refuse({ type: FRAME.ping, length: 1 }, /unexpected contents/);
  refuse({ type: FRAME.bye, sequence: 1 }, /unexpected contents/);
  refuse({ type: FRAME.credit, channel: 1, total: 8, length: 8 }, /unexpected contents/);
  refuse({ type: 99 as Frame["type"] }, /unknown type/);
});

test("a sealed stream that is altered, repeated, cut or swapped is refused at that place", () => {
  const key = new Uint8Array(32).fill(7);
  const sent = [5, 0, 300].map((length, sequence) => Buffer.alloc(length, sequence + 1));
  const seal = new Seal(key);
  const frames = sent.map((bytes, sequence) =>
    Buffer.concat(
      sealFrame({ type: FRAME.message, sequence, total: bytes.byteLength }, bytes, seal),
    ),
  );
  const whole = Buffer.concat(frames);
  const [first, second, third] = frames as [Buffer, Buffer, Buffer];
  const read = (bytes: Uint8Array, theirs = key) => {
    const { reader, frames: seen, broken } = sink();
    reader.seal = new Seal(theirs);
    reader.feed(bytes);
    return { count: seen.length, broken: broken[0] };
  };
  assert.deepEqual(read(whole), { count: 3, broken: undefined });
  for (let at = 0; at < whole.byteLength; at++) {
    const altered = Buffer.from(whole);
    altered[at] = (altered[at] as number) ^ 4;
    const before = at < first.byteLength ? 0 : at < first.byteLength + second.byteLength ? 1 : 2;
    assert.deepEqual(
      [read(altered).count, /seal is wrong/.test(read(altered).broken ?? "")],
      [before, true],
    );
  }
  const others = [
    [first, first],
    [second, first],
    [first, third],
    [first.subarray(0, -1), second],
  ];
  for (const parts of others)
    assert.match(read(Buffer.concat(parts)).broken ?? "", /seal is wrong/);
  assert.match(read(whole, new Uint8Array(32).fill(8)).broken ?? "", /seal is wrong/);
});
