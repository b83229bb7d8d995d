import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../engine/index.ts";
import { InstanceMemory } from "./instance-memory.ts";

const device = createOrtEngine({ threads: 1 });
after(() => device.close());

const PAGE = 4096;
const pages = (from: number, to: number) => ({
  byteOffset: from * PAGE,
  byteLength: (to - from) * PAGE,
});
const buffer = (from: number, to: number) =>
  ({ byteLength: 8 * PAGE, space: "host", parts: [pages(from, to)] }) as const;

test("an instance uses other parts of a buffer of the one before, which keeps its own until then", async () => {
  const [before, now] = [
    new InstanceMemory(device, undefined),
    new InstanceMemory(device, undefined),
  ];
  const firstOf = (memory: InstanceMemory) =>
    Array.from({ length: 8 }, (_, page) => memory.host("x").bytes[page * PAGE]);
  await before.allocate("x", buffer(0, 4));
  before.host("x").bytes.fill(1, 0, 4 * PAGE);
  assert.ok(now.adopt(before, "x", buffer(2, 6), undefined));
  await now.allocate("x", buffer(2, 6));
  now.host("x").bytes.fill(2, 4 * PAGE, 6 * PAGE);
  assert.deepEqual(firstOf(before).slice(0, 4), [1, 1, 1, 1]);
  before.close();
  now.trim();
  assert.deepEqual(firstOf(now), [0, 0, 1, 1, 2, 2, 0, 0]);
  // What was given back is taken again.
  const last = new InstanceMemory(device, undefined);
  assert.ok(last.adopt(now, "x", buffer(0, 3), undefined));
  await last.allocate("x", buffer(0, 3));
  now.close();
  last.trim();
  assert.deepEqual(firstOf(last), [0, 0, 1, 0, 0, 0, 0, 0]);
  last.close();
});
