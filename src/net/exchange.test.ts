import assert from "node:assert/strict";
import { createDecipheriv, randomBytes } from "node:crypto";
import { test } from "node:test";
import {
  Exchange,
  generatorOf,
  POINT_BYTES,
  type SessionKeys,
  type Share,
  sameBytes,
} from "./exchange.ts";
import { Seal, TAG_BYTES } from "./seal.ts";

const token = "a token that both ends know";
const said = (text: string) => Buffer.from(text);

function keysOf(
  { dialer = token, listener = token } = {},
  change: (share: Share) => Share = (share) => share,
): [SessionKeys | undefined, SessionKeys | undefined] {
  const one = new Exchange("dialer", dialer, said("hello"));
  const other = new Exchange("listener", listener, said("welcome"));
  return [one.finish(change(other.share)), other.finish(change(one.share))];
}

test("the generator equals that of the draft's test vector", () => {
  const channel = Buffer.from("oc\x0bB_responder\x0bA_initiator");
  const id = Buffer.from("7e4b4791d6a8ef019b936c79fb7f2c57", "hex");
  const expected = "a6fc82c3b8968fbb2e06fee81ca858586dea50d248f0c7ca6a18b0902a30b36b";
  assert.equal(generatorOf("Password", channel, id).toHex(), expected);
});

test("two ends with the same token have the same keys, which differ in every connection and direction", () => {
  const [mine, theirs] = keysOf();
  assert.deepEqual(mine, theirs);
  const [next] = keysOf();
  assert.ok(mine !== undefined && next !== undefined);
  const all = [mine, next].flatMap(({ proofs, frames, tls }) => [
    ...Object.values(proofs),
    ...Object.values(frames),
    tls,
  ]);
  assert.equal(new Set(all.map((key) => Buffer.from(key).toString("hex"))).size, 10);
});

test("a different token, point or cleartext gives different keys on both ends", () => {
  const changed: ((share: Share) => Share)[] = [
    ({ point }) => ({ point, said: said("without TLS") }),
    (share) => ({ ...share, point: new Exchange("dialer", "guess", said("")).share.point }),
  ];
  const pairs = [
    keysOf({ dialer: "another token of the same kind" }),
    ...changed.map((change) => keysOf({}, change)),
  ];
  for (const [mine, theirs] of pairs) {
    assert.ok(mine !== undefined && theirs !== undefined);
    assert.ok(!sameBytes(mine.proofs.dialer, theirs.proofs.dialer));
    assert.ok(!sameBytes(mine.frames.listener, theirs.frames.listener));
  }
});

test("one's own share, the neutral point and bytes that are not a point are refused", () => {
  const one = new Exchange("dialer", token, said("hello"));
  assert.equal(one.finish(one.share), undefined);
  for (const point of [
    new Uint8Array(POINT_BYTES),
    new Uint8Array(POINT_BYTES).fill(255),
    new Uint8Array(0),
    randomBytes(POINT_BYTES + 1),
  ]) {
    assert.equal(one.finish({ point, said: said("") }), undefined);
  }
});

test("a tag follows the standard however its bytes are split, and counts frames", () => {
  const key = randomBytes(32);
  const bytes = randomBytes(100_000);
  const [whole, cut] = [new Seal(key), new Seal(key)];
  for (let frame = 0; frame < 3; frame++) {
    whole.add(bytes);
    for (let at = 0; at < bytes.byteLength; at += 777) cut.add(bytes.subarray(at, at + 777));
    const tag = whole.tag();
    assert.equal(tag.byteLength, TAG_BYTES);
    assert.deepEqual(cut.tag(), tag);
    const nonce = new Uint8Array(12);
    nonce[0] = frame;
    const options = { authTagLength: TAG_BYTES };
    const check = createDecipheriv("chacha20-poly1305", key, nonce, options);
    check.setAAD(bytes, { plaintextLength: 0 });
    check.setAuthTag(tag);
    assert.equal(check.final().byteLength, 0); // throws if the tag differs
  }
});

test("frames that are changed, repeated, left out or exchanged have different tags", () => {
  const key = randomBytes(32);
  const tagsOf = (frames: readonly string[]) => {
    const seal = new Seal(key);
    return frames.map((frame) => {
      seal.add(Buffer.from(frame));
      return Buffer.from(seal.tag()).toString("hex");
    });
  };
  const [a, b, c] = tagsOf(["first", "second", "third"]);
  assert.notEqual(tagsOf(["firsT"])[0], a);
  assert.notEqual(tagsOf(["first", "first"])[1], a);
  assert.notEqual(tagsOf(["first", "third"])[1], c);
  assert.notEqual(tagsOf(["second", "first"])[0], b);
});
