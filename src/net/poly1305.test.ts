import assert from "node:assert/strict";
import { createDecipheriv, randomBytes } from "node:crypto";
import { test } from "node:test";
import { KEY_BYTES, NONCE_BYTES, NodeTagger, newTagger, TAG_BYTES } from "./poly1305.ts";

test("both implementations make the standard's tags, for bytes of any length and alignment, whichever begins first", () => {
  const key = randomBytes(KEY_BYTES);
  const memory = randomBytes(70_000);
  const shared = Buffer.from(new SharedArrayBuffer(5000)).fill(9);
  const cases = [
    memory.subarray(0, 1),
    memory.subarray(3, 19),
    memory.subarray(1, 4097),
    memory,
    shared.subarray(17),
  ];
  const [own, other, plain] = [newTagger(key), newTagger(randomBytes(32)), new NodeTagger(key)];
  for (const bytes of cases) {
    const nonce = randomBytes(NONCE_BYTES);
    const [tag, again] = [new Uint8Array(TAG_BYTES), new Uint8Array(40).subarray(5, 5 + TAG_BYTES)];
    own.begin(nonce);
    other.begin(nonce);
    plain.begin(nonce);
    for (const tagger of [own, other, plain]) tagger.add(bytes);
    own.end(tag);
    other.end(new Uint8Array(TAG_BYTES));
    plain.end(again);
    assert.deepEqual(tag, Uint8Array.from(again));
    const options = { authTagLength: TAG_BYTES };
    const check = createDecipheriv("chacha20-poly1305", key, nonce, options);
    check.setAAD(bytes, { plaintextLength: 0 });
    check.setAuthTag(tag);
    assert.equal(check.final().byteLength, 0); // throws if the tag differs
  }
});

test("a tagger refuses a key, a nonce and a destination of the wrong length", () => {
  const tagger = newTagger(new Uint8Array(KEY_BYTES));
  assert.throws(() => newTagger(new Uint8Array(31)));
  assert.throws(() => tagger.begin(new Uint8Array(11)));
  assert.throws(() => tagger.end(new Uint8Array(15)));
});
