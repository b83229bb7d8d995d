import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openStore } from "../checkpoint/index.ts";
import { DiskFaults } from "./disk-faults.ts";

const SHARD = { byteLength: 3, pieces: [Uint8Array.of(1, 2, 3)] };

test("a full disk fails the next shard as the system would, and no later one", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lockstep-"));
  try {
    const store = openStore(folder, {});
    const faults = new DiskFaults();
    faults.haunt(store);
    faults.arm("disk-full");
    const first = await store.begin(1, [0]);
    await assert.rejects(store.write(first, 0, SHARD), { code: "DISK_FULL" });
    await assert.rejects(store.gather(first, [0]), { code: "DISK_FULL" });
    const second = await store.begin(2, [0]);
    await store.write(second, 0, SHARD);
    const [shard] = await store.gather(second, [0]);
    assert.equal(shard?.byteLength, 3);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a slow disk writes the same bytes, later", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lockstep-"));
  try {
    const store = openStore(folder, {});
    const faults = new DiskFaults(50);
    faults.haunt(store);
    const hashes: (string | undefined)[] = [];
    const times: number[] = [];
    for (const isSlow of [false, true]) {
      if (isSlow) faults.arm("slow-disk");
      const draft = await store.begin(1, [0]);
      const from = performance.now();
      await store.write(draft, 0, SHARD);
      times.push(performance.now() - from);
      hashes.push((await store.gather(draft, [0]))[0]?.sha256);
    }
    assert.equal(hashes[0], hashes[1]);
    assert.ok((times[1] as number) >= 49, `${times[1]} ms`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
