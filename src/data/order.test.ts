import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { permutation, positionsOfStep, sampleOrder } from "./order.ts";

test("a permutation is a bijection of [0, n) for any n, seed and stream", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3000 }),
      fc.maxSafeInteger(),
      fc.nat(),
      (n, seed, stream) => {
        const permute = permutation(n, seed, stream);
        const seen = new Set(Array.from({ length: n }, (_, index) => permute(index)));
        assert.equal(seen.size, n);
        for (const image of seen) assert.ok(Number.isInteger(image) && image >= 0 && image < n);
      },
    ),
  );
});

test("a permutation is exact for 10^12 samples and up to 2^53", () => {
  for (const n of [10 ** 12, 999_999_999_989, 2 ** 40, 2 ** 53 - 1]) {
    const permute = permutation(n, 7, 3);
    const indices = [0, 1, 2, n - 3, n - 2, n - 1, Math.floor(n / 2)];
    for (let i = 0; i < 20_000; i++) indices.push(i * Math.floor(n / 20_001) + 5);
    const images = indices.map(permute);
    assert.equal(new Set(images).size, new Set(indices).size);
    for (const image of images) assert.ok(Number.isSafeInteger(image) && image >= 0 && image < n);
  }
});

test("every sample is about equally often at every position", () => {
  for (const n of [2, 3, 5, 8, 10, 16]) {
    const trials = 4000;
    const counts = Array.from({ length: n }, () => new Array<number>(n).fill(0));
    for (let seed = 0; seed < trials; seed++) {
      const permute = permutation(n, seed, 0);
      for (let position = 0; position < n; position++) {
        const row = counts[position] as number[];
        const image = permute(position);
        row[image] = (row[image] ?? 0) + 1;
      }
    }
    const expected = trials / n;
    const chiSquare = counts
      .flat()
      .reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    const limit = chiSquareLimit((n - 1) ** 2);
    assert.ok(
      chiSquare < limit,
      `n ${n}: chi-square ${chiSquare.toFixed(1)} over ${limit.toFixed(1)}`,
    );
  }
});

test("every permutation of a few samples is about equally likely", () => {
  for (const [n, permutations] of [
    [5, 120],
    [6, 720],
  ] as const) {
    const trials = 8000;
    const counts = new Map<string, number>();
    for (let seed = 0; seed < trials; seed++) {
      const key = sampleOrder(n, seed).indices(0, n).join();
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const expected = trials / permutations;
    let chiSquare = (permutations - counts.size) * expected;
    for (const count of counts.values()) chiSquare += (count - expected) ** 2 / expected;
    const limit = chiSquareLimit(permutations - 1);
    assert.ok(chiSquare < limit, `n ${n}: ${chiSquare.toFixed(0)} over ${limit.toFixed(0)}`);
  }
});

/** The 99.99% point of chi-square, by Wilson and Hilferty. */
function chiSquareLimit(freedom: number): number {
  return freedom * (1 - 2 / (9 * freedom) + 3.72 * Math.sqrt(2 / (9 * freedom))) ** 3;
}

test("neighbours in the order are unrelated samples", () => {
  for (const n of [1000, 12_345, 10 ** 9]) {
    const order = sampleOrder(n, 11);
    const images = order.indices(0, 1000).map((index) => index / n);
    const mean = images.reduce((a, b) => a + b) / images.length;
    assert.ok(Math.abs(mean - 0.5) < 0.05);
    let product = 0;
    for (let i = 1; i < images.length; i++) {
      product += ((images[i] as number) - 0.5) * ((images[i - 1] as number) - 0.5);
    }
    const correlation = (product / (images.length - 1)) * 12;
    assert.ok(Math.abs(correlation) < 0.12, `${n}: ${correlation}`);
  }
});

test("epochs and seeds give different orders, and the same seed the same order, asked in any sequence", () => {
  const order = sampleOrder(500, 1);
  const first = order.indices(0, 500);
  const second = order.indices(500, 1000);
  assert.notDeepEqual(first, second);
  assert.deepEqual(
    [...second].sort((a, b) => a - b),
    Array.from({ length: 500 }, (_, i) => i),
  );
  assert.notDeepEqual(sampleOrder(500, 2).indices(0, 500), first);
  const other = sampleOrder(500, 1);
  assert.equal(other.indexAt(777), second[277]);
  assert.equal(other.indexAt(3), first[3]);
  assert.equal(other.epochOf(999), 1);
  assert.equal(other.epochOf(1000), 2);
  assert.deepEqual(other.indices(495, 505), [...first.slice(495), ...second.slice(0, 5)]);
});

test("golden values: the order of a seed never changes", () => {
  assert.deepEqual(
    sampleOrder(10, 0).indices(0, 20),
    [7, 0, 5, 2, 6, 9, 4, 3, 8, 1, 3, 8, 1, 2, 9, 0, 4, 5, 7, 6],
  );
  assert.deepEqual(
    sampleOrder(10 ** 12, 42).indices(10 ** 12 - 2, 10 ** 12 + 3),
    [980965748529, 295377557020, 717069227198, 358963081275, 284990863324],
  );
});

test("a step owns its positions, and impossible steps are refused", () => {
  assert.deepEqual(positionsOfStep(3, 64), { start: 192, end: 256 });
  assert.throws(() => positionsOfStep(2 ** 50, 64), { code: "INVALID_OPTION" });
  assert.throws(() => positionsOfStep(-1, 64), { code: "INVALID_OPTION" });
  assert.throws(() => sampleOrder(0, 1), { code: "DATA_EMPTY" });
  assert.throws(() => sampleOrder(10, 0.5), { code: "INVALID_OPTION" });
});
