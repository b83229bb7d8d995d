/**
 * What every transport must do for every collective. The tests are written once, and run over each
 * transport.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Group, type GroupBuffer, type Part, partsOf } from "../../src/collectives/index.ts";
import { byteLength, bytesPerElement, type DType, tensorFrom } from "../../src/tensor/index.ts";
import { allocate, free, runOnce } from "../support/ranks.ts";

export interface ContractOptions {
  readonly name: string;
  /** Returns one group for each rank, in one process. The groups close when the test is done. */
  readonly makeGroups: (size: number) => Promise<readonly Group[]>;
  readonly worlds?: readonly number[];
  readonly counts?: readonly number[];
}

const TYPES: readonly DType[] = [
  "float32",
  "float64",
  "float16",
  "bfloat16",
  "int8",
  "int32",
  "int64",
  "uint8",
];
const COUNTS = [0, 1, 17, 1000];
/**
 * More elements than one slot of a mailbox holds, and than what is sent before the receiver asks
 * for it. Tested for one type only.
 */
const LARGE_COUNT = 70_001;
const LARGE_TYPES: readonly DType[] = ["float32"];
const WORLDS = [1, 2, 3, 4, 5, 6, 7, 8];
/** The bytes before and after the memory that a collective works on. */
const MARGIN = 8;
const GARBAGE = 0xa5;

/** Returns a small integer for each rank and index, which every type can hold exactly. */
function valueAt(rank: number, index: number): number {
  return (rank * 7 + index * 3) % 101;
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

/** Runs every collective as one rank. All ranks run it together, in one process or in several. */
export async function everyCollective(group: Group, counts: readonly number[]): Promise<void> {
  const most = Math.max(...counts);
  const data = await allocate(group, 8 * most + 2 * MARGIN);
  const into = await allocate(group, 8 * most * group.size + 2 * MARGIN);
  // The same memory is used in place, if the transport shares it, and by messages alone.
  const ways = { "in place": data, "by messages": group.borrow(data.own) };
  for (const [way, buffer] of Object.entries(ways)) {
    for (const count of counts) {
      for (const dtype of count >= LARGE_COUNT ? LARGE_TYPES : TYPES) {
        await allGather(group, buffer, { count, dtype, way });
        await allToAll(group, buffer, into, { count, dtype, way });
      }
      await group.barrier();
    }
  }
  free(group, data);
  free(group, into);
}

interface Case {
  readonly count: number;
  readonly dtype: DType;
  readonly way: string;
}

async function allGather(group: Group, data: GroupBuffer, given: Case): Promise<void> {
  const { count, dtype, way } = given;
  const { rank, size } = group;
  for (const [parts, counts] of Object.entries({
    even: even(count, size),
    uneven: uneven(count, size),
    "of one rank": partsOf(Array<number>(size).fill(0)).map((_, peer) =>
      peer === size >> 1 ? count : 0,
    ),
  })) {
    const places = partsOf(counts);
    const expected = places.flatMap(({ start, length }, owner) =>
      Array.from({ length }, (_, index) => valueAt(owner, start + index)),
    );
    data.bytes.fill(GARBAGE);
    put(data, dtype, places[rank] as Part, (index) => valueAt(rank, index));
    const request = { kind: "allGather", dtype, counts } as const;
    await runOnce(group, request, { data, byteOffset: MARGIN });
    assertHolds(data, dtype, expected, `all-gather ${way} of ${parts} parts of ${count} ${dtype}`);
  }
}

/** Rank r sends up to six elements to rank p, and none to some. */
async function allToAll(
  group: Group,
  data: GroupBuffer,
  into: GroupBuffer,
  { count, dtype, way }: Case,
): Promise<void> {
  const { rank, size } = group;
  const amount = (from: number, to: number) =>
    Math.min((from + 2 * to + count) % 7, Math.floor(count / size));
  const large = (from: number, to: number) => (to === (from + 1) % size ? count : 0);
  const ranks = Array.from({ length: size }, (_, peer) => peer);
  for (const [amounts, of] of Object.entries({ few: amount, "all to the next": large })) {
    const sendCounts = ranks.map((peer) => of(rank, peer));
    const receiveCounts = ranks.map((peer) => of(peer, rank));
    const values = (from: number, to: number) =>
      Array.from({ length: of(from, to) }, (_, index) => valueAt(from * size + to, index));
    const given = ranks.flatMap((peer) => values(rank, peer));
    data.bytes.fill(GARBAGE);
    into.bytes.fill(GARBAGE);
    put(data, dtype, { start: 0, length: given.length }, (index) => given[index] as number);
    const request = { kind: "allToAll", dtype, sendCounts, receiveCounts } as const;
    const places = { data, byteOffset: MARGIN, into, intoByteOffset: MARGIN };
    await runOnce(group, request, places);
    const taken = ranks.flatMap((peer) => values(peer, rank));
    assertHolds(into, dtype, taken, `all-to-all ${way} of ${amounts} of ${count} ${dtype}`);
  }
}

function even(count: number, size: number): number[] {
  return Array.from(
    { length: size },
    (_, rank) => Math.floor((count * (rank + 1)) / size) - Math.floor((count * rank) / size),
  );
}

/** Returns parts of odd lengths, some of them empty. */
function uneven(count: number, size: number): number[] {
  const counts = Array.from({ length: size }, (_, rank) =>
    rank % 3 === 1 ? 0 : Math.min(rank + 1, Math.floor(count / size)),
  );
  counts[size - 1] = 0;
  counts[size - 1] = count - counts.reduce((a, b) => a + b, 0);
  return counts;
}

/** Writes a part after the margin. */
function put(
  buffer: GroupBuffer,
  dtype: DType,
  { start, length }: Part,
  value: (index: number) => number,
): void {
  const values = Array.from({ length }, (_, index) => value(start + index));
  const offset = MARGIN + start * bytesPerElement(dtype);
  buffer.bytes.set(tensorFrom(dtype, [length], values).bytes, offset);
}

/** Fails unless the buffer has these values after the margin, and nothing was written outside. */
function assertHolds(
  buffer: GroupBuffer,
  dtype: DType,
  expected: readonly number[],
  what: string,
): void {
  const end = MARGIN + byteLength({ dtype, shape: [expected.length] });
  const wanted = tensorFrom(dtype, [expected.length], expected).bytes;
  const found = buffer.bytes.subarray(MARGIN, end);
  assert.ok(Buffer.from(wanted).equals(found), `${what}: wrong result`);
  for (const from of [0, end]) {
    const beside = buffer.bytes.subarray(from, from + MARGIN);
    assert.ok(
      beside.every((byte) => byte === GARBAGE),
      `${what}: wrote beside its place`,
    );
  }
}
