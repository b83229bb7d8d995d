/** What every transport must do for every collective: written once, run over each. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Algorithm,
  type Collective,
  type Group,
  type GroupBuffer,
  partsFor,
  type Reduction,
} from "../../src/collectives/index.ts";
import { byteLength, type DType, tensorFrom } from "../../src/tensor/index.ts";

export interface ContractOptions {
  readonly name: string;
  /** One group for each rank, in one process; the groups close when the test is done. */
  readonly makeGroups: (size: number) => Promise<readonly Group[]>;
  readonly worlds?: readonly number[];
  readonly counts?: readonly number[];
}

const TYPES: readonly DType[] = ["float32", "float16", "bfloat16", "int8", "int32"];
const COUNTS = [0, 1, 17, 1000];
/** Beyond one tile of a reduction, one slot of a mailbox and what is sent unasked. */
const LARGE_COUNT = 70_001;
const WORLDS = [1, 2, 3, 4, 5, 6, 7, 8];

/** A small whole number for each rank and place, so that every type adds without rounding. */
export function valueAt(rank: number, index: number): number {
  return ((rank * 7 + index * 3) % 5) - 2;
}

export function collectivesContract(options: ContractOptions): void {
  const { name, makeGroups, worlds = WORLDS, counts = COUNTS } = options;
  for (const size of worlds) {
    test(`${name}: collectives of ${size}`, async () => {
      const groups = await makeGroups(size);
      try {
        await Promise.all(
          groups.map((group) =>
            everyCollective(group, size === 3 ? [...counts, LARGE_COUNT] : counts),
          ),
        );
      } finally {
        await Promise.all(groups.map((group) => group.close()));
      }
    });
  }
}

/** What one rank does; all ranks do it together, in one process or in several. */
export async function everyCollective(group: Group, counts: readonly number[]): Promise<void> {
  const most = Math.max(...counts);
  const data = await group.allocate(8 * most + 64);
  const into = await group.allocate(8 * most * group.size + 64);
  for (const count of counts) {
    for (const dtype of TYPES) await allReduce(group, data, { count, dtype, reduction: "sum" });
    for (const reduction of ["mean", "max", "min", "prod"] as const) {
      await allReduce(group, data, { count, dtype: "float32", reduction });
    }
    await reduceScatter(group, data, count);
    await allGather(group, data, count);
    await broadcast(group, data, count);
    await allToAll(group, data, into, count);
    await sendReceive(group, data, count);
    await group.barrier();
  }
}

interface ReduceCase {
  readonly count: number;
  readonly dtype: DType;
  readonly reduction: Reduction;
}

async function allReduce(group: Group, data: GroupBuffer, given: ReduceCase): Promise<void> {
  const { count, dtype, reduction } = given;
  const expected = expectedOf(group.size, given);
  for (const algorithm of algorithmsOf(group, { kind: "allReduce", ...given })) {
    fill(data, dtype, count, (index) => inputOf(given, group.rank, index));
    await group.run({ kind: "allReduce", ...given }, { data, byteOffset: 8, algorithm });
    assertSame(data, dtype, expected, `${algorithm} ${reduction} of ${count} ${dtype}`);
  }
}

async function reduceScatter(group: Group, data: GroupBuffer, count: number): Promise<void> {
  const given = { count, dtype: "float32", reduction: "sum" } as const;
  for (const counts of [undefined, uneven(count, group.size)]) {
    const request = { kind: "reduceScatter", ...given, ...(counts && { counts }) } as const;
    const { start, length } = partsFor(request, group.size)[group.rank] ?? { start: 0, length: 0 };
    const expected = expectedOf(group.size, given).slice(start, start + length);
    for (const algorithm of algorithmsOf(group, request)) {
      fill(data, "float32", count, (index) => valueAt(group.rank, index));
      await group.run(request, { data, byteOffset: 8, algorithm });
      assertSame(data, "float32", expected, `${algorithm} reduce-scatter of ${count}`, start);
    }
  }
}

async function allGather(group: Group, data: GroupBuffer, count: number): Promise<void> {
  for (const counts of [undefined, uneven(count, group.size)]) {
    const request = { kind: "allGather", count, dtype: "int8", ...(counts && { counts }) } as const;
    const parts = partsFor(request, group.size);
    const owner = (index: number) =>
      parts.findIndex(({ start, length }) => index >= start && index < start + length);
    for (const algorithm of algorithmsOf(group, request)) {
      fill(data, "int8", count, (index) => (owner(index) === group.rank ? group.rank + 1 : 0));
      await group.run(request, { data, byteOffset: 8, algorithm });
      const expected = Array.from({ length: count }, (_, index) => owner(index) + 1);
      assertSame(data, "int8", expected, `${algorithm} all-gather of ${count}`);
    }
  }
}

async function broadcast(group: Group, data: GroupBuffer, count: number): Promise<void> {
  const root = group.size - 1;
  const request = { kind: "broadcast", count, dtype: "float16", root } as const;
  for (const algorithm of algorithmsOf(group, request)) {
    fill(data, "float16", count, (index) => (group.rank === root ? index % 100 : -1));
    await group.run(request, { data, byteOffset: 8, algorithm });
    const expected = Array.from({ length: count }, (_, index) => index % 100);
    assertSame(data, "float16", expected, `${algorithm} broadcast of ${count}`);
  }
}

/** Rank r gives rank p as many elements as r + p + count modulo 7, each r · 10 + p. */
async function allToAll(
  group: Group,
  data: GroupBuffer,
  into: GroupBuffer,
  count: number,
): Promise<void> {
  const { rank, size } = group;
  const amount = (a: number, b: number) =>
    Math.min((a + 2 * b + count) % 7, Math.floor(count / size));
  const ranks = Array.from({ length: size }, (_, peer) => peer);
  const sendCounts = ranks.map((peer) => amount(rank, peer));
  const receiveCounts = ranks.map((peer) => amount(peer, rank));
  const request = { kind: "allToAll", dtype: "int32", sendCounts, receiveCounts } as const;
  const given = ranks.flatMap((peer) => Array(sendCounts[peer]).fill(rank * 10 + peer) as number[]);
  const taken = ranks.flatMap((p) => Array(receiveCounts[p]).fill(p * 10 + rank) as number[]);
  for (const algorithm of algorithmsOf(group, request)) {
    fill(data, "int32", given.length, (index) => given[index] ?? 0);
    fill(into, "int32", taken.length, () => 99);
    await group.run(request, { data, byteOffset: 8, into, intoByteOffset: 8, algorithm });
    assertSame(into, "int32", taken, `${algorithm} all-to-all`);
  }
}

/** Even ranks send to the next one. */
async function sendReceive(group: Group, data: GroupBuffer, count: number): Promise<void> {
  const { rank, size } = group;
  if (rank % 2 === 0 && rank + 1 === size) return;
  fill(data, "float32", count, (index) => (rank % 2 === 0 ? rank + index : -1));
  const message = { count, dtype: "float32" } as const;
  const place = { data, byteOffset: 8 };
  if (rank % 2 === 0) await group.run({ kind: "send", ...message, to: rank + 1 }, place);
  else await group.run({ kind: "receive", ...message, from: rank - 1 }, place);
  const first = rank - (rank % 2);
  const expected = Array.from({ length: count }, (_, index) => first + index);
  assertSame(data, "float32", expected, `message of ${count}`);
}

function algorithmsOf(group: Group, collective: Collective): Algorithm[] {
  return Object.keys(group.choose(collective).estimates) as Algorithm[];
}

function inputOf({ reduction }: ReduceCase, rank: number, index: number): number {
  if (reduction !== "prod") return valueAt(rank, index);
  return rank === index % 3 ? 2 : index % 2 === 0 ? -1 : 1;
}

function expectedOf(size: number, given: ReduceCase): number[] {
  return Array.from({ length: given.count }, (_, index) => {
    const values = Array.from({ length: size }, (__, rank) => inputOf(given, rank, index));
    switch (given.reduction) {
      case "sum":
        return values.reduce((a, b) => a + b);
      case "mean":
        return Math.fround(values.reduce((a, b) => a + b) / size);
      case "max":
        return Math.max(...values);
      case "min":
        return Math.min(...values);
      case "prod":
        return values.reduce((a, b) => a * b);
    }
  });
}

/** Parts of odd lengths, some empty. */
function uneven(count: number, size: number): number[] {
  const counts = Array.from({ length: size }, (_, rank) =>
    rank % 3 === 1 ? 0 : Math.min(rank + 1, Math.floor(count / size)),
  );
  counts[size - 1] = 0;
  counts[size - 1] = count - counts.reduce((a, b) => a + b, 0);
  return counts;
}

/** Memory of an odd place, all of it garbage but the values. */
function fill(
  buffer: GroupBuffer,
  dtype: DType,
  count: number,
  value: (index: number) => number,
): void {
  const values = Array.from({ length: count }, (_, index) => value(index));
  buffer.bytes.fill(0xa5);
  buffer.bytes.set(tensorFrom(dtype, [count], values).bytes, 8);
}

function assertSame(
  buffer: GroupBuffer,
  dtype: DType,
  expected: readonly number[],
  what: string,
  start = 0,
): void {
  const wanted = tensorFrom(dtype, [expected.length], expected).bytes;
  const unit = byteLength({ dtype, shape: [1] });
  const found = buffer.bytes.subarray(8 + start * unit, 8 + start * unit + wanted.byteLength);
  assert.ok(Buffer.from(wanted).equals(found), `${what}: wrong result`);
  const before = buffer.bytes.subarray(0, 8);
  assert.ok(
    before.every((byte) => byte === 0xa5),
    `${what}: wrote before its place`,
  );
}
