/**
 * The wire between two network namespaces, as a process: a TUN device in each, and IP packets that
 * are carried from one to the other late and not always. Arguments: name and namespace of each end.
 * After "cut" it carries nothing until "heal". It ends with its parent.
 */
import fs from "node:fs";
import koffi from "koffi";
import { randomSource } from "./random.ts";

const DELAY_MS = 3;
const JITTER_MS = 1;
const LOSS = 0.02;
/** The most packets on the way in one direction. Further ones are lost, as in any router. */
const MOST_ON_THE_WAY = 1000;
const LARGEST_PACKET = 2 ** 16;
const TICK_MS = 1;

const CLONE_NEWNET = 0x40000000;
const TUNSETIFF = 0x400454ca;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFREQ_BYTES = 40;
const NAME_BYTES = 16;

/**
 * What went over the wire. `clear` counts the packets that contain a readable word of what ranks
 * send about themselves.
 */
export interface Carried {
  readonly passed: number;
  readonly lost: number;
  readonly clear: number;
}

const libc = koffi.load("libc.so.6");
const setns = libc.func("int setns(int fd, int kind)") as (fd: number, kind: number) => number;
const ioctl = libc.func("int ioctl(int fd, unsigned long request, void *value)") as (
  fd: number,
  request: number,
  value: Uint8Array,
) => number;
const read = libc.func("long read(int fd, void *into, size_t count)") as Transfer;
const write = libc.func("long write(int fd, void *from, size_t count)") as Transfer;
type Transfer = (fd: number, bytes: Uint8Array, count: number) => number;

/** Opens a TUN device in a namespace, which this thread then stays in. */
function openEnd(name: string, namespace: string): number {
  const space = fs.openSync(`/run/netns/${namespace}`, "r");
  if (setns(space, CLONE_NEWNET) !== 0) throw new Error(`setns: errno ${koffi.errno()}`);
  fs.closeSync(space);
  const fd = fs.openSync("/dev/net/tun", fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(Buffer.from(name));
  new DataView(request.buffer).setUint16(NAME_BYTES, IFF_TUN | IFF_NO_PI, true);
  if (ioctl(fd, TUNSETIFF, request) !== 0) throw new Error(`TUNSETIFF: errno ${koffi.errno()}`);
  return fd;
}

interface OnTheWay {
  readonly packet: Uint8Array;
  readonly dueMs: number;
}

const carried = { passed: 0, lost: 0, clear: 0 };
const random = randomSource(17);
const buffer = Buffer.alloc(LARGEST_PACKET);
let isCut = false;

/** Carries packets in one direction, in order. */
function carry(from: number, to: number): () => void {
  const queue: OnTheWay[] = [];
  return () => {
    const nowMs = performance.now();
    for (;;) {
      const count = read(from, buffer, LARGEST_PACKET);
      if (count <= 0) break;
      const packet = Uint8Array.from(buffer.subarray(0, count));
      if (Buffer.from(packet.buffer).includes('"generation"')) carried.clear += 1;
      if (isCut || queue.length >= MOST_ON_THE_WAY || random() < LOSS) carried.lost += 1;
      else {
        const jitterMs = JITTER_MS * (2 * random() - 1);
        const before = queue.at(-1)?.dueMs ?? 0;
        queue.push({ packet, dueMs: Math.max(before, nowMs + DELAY_MS + jitterMs) });
      }
    }
    while (!isCut && queue[0] !== undefined && queue[0].dueMs <= nowMs) {
      const { packet } = queue.shift() as OnTheWay;
      write(to, packet, packet.byteLength);
      carried.passed += 1;
    }
  };
}

const [nameA = "", spaceA = "", nameB = "", spaceB = ""] = process.argv.slice(2);
try {
  const [a, b] = [openEnd(nameA, spaceA), openEnd(nameB, spaceB)];
  const directions = [carry(a, b), carry(b, a)];
  setInterval(() => {
    for (const direction of directions) direction();
  }, TICK_MS);
  process.on("message", (word) => {
    if (word === "cut" || word === "heal") isCut = word === "cut";
    else process.send?.({ carried });
  });
  process.on("disconnect", () => process.exit());
  process.send?.({ ready: true });
} catch (error) {
  process.send?.({ problem: error instanceof Error ? error.message : String(error) }, () =>
    process.exit(1),
  );
}
