import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { bigramBitsPerByte, gzipBitsPerByte } from "./baselines.ts";
import type { TextPart } from "./source.ts";

function part(text: string | Uint8Array, pieceBytes = 1000): TextPart {
  const all = Buffer.from(text);
  return {
    byteLength: all.length,
    tokens: all.length,
    bytes: async function* () {
      for (let at = 0; at < all.length; at += pieceBytes) {
        yield await Promise.resolve(all.subarray(at, at + pieceBytes));
      }
    },
  };
}

/**
 * Returns random text of a known bigram source over `symbols` letters: each letter is followed by
 * one of two others, at odds of 3 to 1.
 */
function markovText(length: number, symbols: number): Buffer {
  const text = Buffer.alloc(length);
  let state = 0;
  let random = 1;
  for (let i = 0; i < length; i++) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    state = ((random >>> 16) % 4 === 0 ? state * 3 + 1 : state * 5 + 2) % symbols;
    text[i] = 97 + state;
  }
  return text;
}

test("on text of a bigram source the bigram model reaches the entropy of the source", async () => {
  const text = markovText(200_000, 20);
  const bitsPerByte = await bigramBitsPerByte(
    part(text.subarray(0, 150_000)),
    part(text.subarray(150_000)),
  );
  const entropy = -(0.25 * Math.log2(0.25) + 0.75 * Math.log2(0.75));
  assert.ok(Math.abs(bitsPerByte - entropy) < 0.01, `${bitsPerByte} against ${entropy}`);
});

test("smoothing: unseen text costs about eight bits a byte, not infinitely many", async () => {
  const seen = part("a".repeat(100));
  const other = part(Uint8Array.from({ length: 2000 }, (_, i) => (i * 97) % 256));
  const bitsPerByte = await bigramBitsPerByte(seen, other);
  assert.ok(bitsPerByte > 7 && bitsPerByte < 12, String(bitsPerByte));
});

test("the result does not depend on how the text is cut into pieces", async () => {
  const text = markovText(5000, 9);
  const whole = await bigramBitsPerByte(part(text, 5000), part(text, 5000));
  const small = await bigramBitsPerByte(part(text, 7), part(text, 13));
  assert.equal(small, whole);
});

test("gzip: the size equals that of zlib at level 9", async () => {
  const text = markovText(50_000, 20);
  const bitsPerByte = await gzipBitsPerByte(part(text, 4096));
  assert.equal(bitsPerByte, (8 * gzipSync(text, { level: 9 }).length) / text.length);
});
