import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { byteLength, bytesPerElement, type DType } from "../tensor/index.ts";
import { faultOf, readsFor, type StoredPart, type StoredTensor } from "./assemble.ts";
import { outdated } from "./retain.ts";
import { type HeldTensor, layOutShard, shareOut } from "./share-out.ts";

/** A tensor of one dim, cut at some elements, with an owner for each part; undefined is all. */
const tensors = (ranks: number): fc.Arbitrary<HeldTensor[]> =>
  fc
    .array(
      fc.record({
        dtype: fc.constantFrom<DType>("float32", "float16", "int64", "uint8"),
        parts: fc.array(
          fc.record({
            length: fc.integer({ min: 1, max: 9 }),
            owner: fc.option(fc.integer({ min: 0, max: ranks - 1 }), { nil: undefined }),
          }),
          { maxLength: 4 },
        ),
      }),
      { maxLength: 6 },
    )
    .map((all) =>
      all.map(({ dtype, parts }, index): HeldTensor => {
        let at = 0;
        const cut = parts.map(({ length, owner }) => {
          const from = at;
          at += length * bytesPerElement(dtype);
          return { from, to: at, owner };
        });
        const count = parts.reduce((sum, { length }) => sum + length, 0);
        return { name: `parameters/${index}`, dtype, shape: [count], parts: cut };
      }),
    );

const RANKS = 4;

/** Writes all shards of these tensors into memory, and returns them with the places of tensors. */
function written(all: readonly HeldTensor[], writers: readonly number[], leader: number) {
  const types = new Map(all.map((tensor) => [tensor.name, tensor]));
  const places = new Map<string, StoredPart[]>(all.map(({ name }) => [name, []]));
  const shares = shareOut(all, { writers, leader });
  const shards = writers.map((rank, shard) => {
    const { header, pieces, byteLength: size } = layOutShard(shares.get(rank) ?? [], types);
    const bytes = new Uint8Array(size);
    bytes.set(header);
    for (const { name, from, to, start, end } of pieces) {
      bytes.set(
        contents(name, byteLength(types.get(name) as HeldTensor)).subarray(from, to),
        start,
      );
      places.get(name)?.push({ shard, start, end, from });
    }
    return bytes;
  });
  const stored = all.map(({ name, dtype, shape }): [string, StoredTensor] => {
    const parts = (places.get(name) ?? []).toSorted((a, b) => a.from - b.from);
    return [name, { dtype, shape, parts }];
  });
  return { shards, stored: new Map(stored), shares };
}

function contents(name: string, size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, at) => (at * 7 + name.length + at / 256) % 256);
}

test("any range of any tensor is found again in the shards, whoever held and wrote its parts", () => {
  fc.assert(
    fc.property(
      tensors(RANKS),
      fc.subarray([0, 1, 2, 3], { minLength: 1 }),
      fc.nat(),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (all, writers, which, one, other) => {
        const leader = writers[which % writers.length] as number;
        const { shards, stored } = written(all, writers, leader);
        const sizes = shards.map((shard) => shard.byteLength);
        for (const { name, dtype, shape } of all) {
          const tensor = stored.get(name) as StoredTensor;
          assert.equal(faultOf(tensor, sizes), undefined);
          const size = byteLength({ dtype, shape });
          const [from = 0, to = 0] = [one, other]
            .map((x) => Math.floor(x * size))
            .sort((a, b) => a - b);
          const found = new Uint8Array(to - from);
          let covered = 0;
          for (const { shard, start, byteLength: length, into } of readsFor(tensor, from, to)) {
            found.set((shards[shard] as Uint8Array).subarray(start, start + length), into);
            covered += length;
          }
          assert.equal(covered, to - from, "each byte is read once");
          assert.deepEqual(found, contents(name, size).slice(from, to));
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("a rank writes what it alone holds; what all hold is written once, by the least loaded", () => {
  const part = (from: number, to: number, owner?: number) => ({ from, to, owner });
  const float = { dtype: "float32", shape: [100] } as const;
  const all: HeldTensor[] = [
    { name: "slots/a", ...float, parts: [part(0, 100, 0), part(100, 400, 1)] },
    { name: "parameters/a", ...float, parts: [part(0, 400)] },
    { name: "parameters/b", dtype: "float32", shape: [50], parts: [part(0, 200)] },
  ];
  const shares = shareOut(all, { writers: [0, 1], leader: 0 });
  assert.deepEqual(shares.get(0), [
    { name: "slots/a", from: 0, to: 100 },
    { name: "parameters/a", from: 0, to: 400 },
  ]);
  assert.deepEqual(shares.get(1), [
    { name: "slots/a", from: 100, to: 400 },
    { name: "parameters/b", from: 0, to: 200 },
  ]);
  const alone = shareOut(all, { writers: [0], leader: 0 });
  const bytes = (alone.get(0) ?? []).reduce((sum, { from, to }) => sum + to - from, 0);
  assert.equal(bytes, 1000, "the leader writes for those that cannot");
});

test("a part of a tensor has a name that says which elements it has", () => {
  const types = new Map([["slots/a", { dtype: "float32", shape: [4, 5] } as const]]);
  const { header } = layOutShard([{ name: "slots/a", from: 16, to: 40 }], types);
  const json = JSON.parse(new TextDecoder().decode(header.subarray(8)));
  const offsets = { dtype: "F32", shape: [6], data_offsets: [0, 24] };
  assert.deepEqual(json, { __metadata__: { format: "pt" }, "slots/a[4:10]": offsets });
});

test("gaps, repeats and places outside of a shard are faults", () => {
  const tensor = (...parts: [number, number, number][]): StoredTensor => ({
    dtype: "uint8",
    shape: [10],
    parts: parts.map(([from, start, end]) => ({ shard: 0, from, start, end })),
  });
  assert.equal(faultOf(tensor([0, 8, 12], [4, 20, 26]), [30]), undefined);
  assert.match(faultOf(tensor([0, 8, 12], [5, 20, 25]), [30]) ?? "", /not once/);
  assert.match(faultOf(tensor([0, 8, 12], [3, 20, 27]), [30]) ?? "", /not once/);
  assert.match(faultOf(tensor([0, 8, 12], [4, 20, 26]), [25]) ?? "", /outside/);
  assert.match(faultOf(tensor([0, 8, 12]), [30]) ?? "", /4 bytes instead of 10/);
});

test("the newest are kept, those of every so many steps, and nothing else", () => {
  const steps = [2, 4, 6, 8, 10, 12];
  assert.deepEqual(outdated(steps, { keepLast: 2 }), [2, 4, 6, 8]);
  assert.deepEqual(outdated(steps, { keepLast: 2, keepEvery: 4 }), [2, 6]);
  assert.deepEqual(outdated(steps, { keepLast: 9 }), []);
  assert.deepEqual(outdated([12, 0, 2], { keepLast: 1, keepEvery: 4 }), [0, 2]);
});
