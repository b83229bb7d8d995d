import assert from "node:assert/strict";
import { test } from "node:test";
import { checkToken, Exchange, mapToCurve } from "./exchange.ts";

const token = "a token of these tests";

test("numbers are mapped to the curve as in RFC 9380, J.4.2", () => {
  const littleEndian = (digits: string) => Buffer.from(digits, "hex").reverse();
  const u = "608d892b641f0328523802a6603427c26e55e6f27e71a91a478148d45b5093cd";
  const x = "51125222da5e763d97f3c10fcc92ea6860b9ccbbd2eb1285728f566721c1e65b";
  assert.deepEqual(mapToCurve(littleEndian(u)), littleEndian(x));
});

test("two ends with one token agree, and with nothing else", () => {
  const [dialer, listener, other] = [
    new Exchange(token),
    new Exchange(token),
    new Exchange(`${token}!`),
  ];
  const said = [Buffer.from("hello"), listener.publicKey];
  const keys = (one: Exchange, theirs: Exchange, transcript: readonly Uint8Array[] = said) =>
    Buffer.from(one.agree(theirs.publicKey, transcript)?.dialerKey ?? []).toString("hex");
  assert.equal(keys(dialer, listener), keys(listener, dialer));
  assert.notEqual(keys(dialer, other), keys(other, dialer));
  assert.notEqual(keys(dialer, listener), keys(listener, dialer, [...said, Buffer.from("!")]));
  assert.notEqual(keys(dialer, listener), keys(new Exchange(token), listener));
  const session = dialer.agree(listener.publicKey, said);
  const all = Object.values(session ?? {}).map((key) => Buffer.from(key).toString("hex"));
  assert.deepEqual([all.length, new Set(all).size], [4, 4]);
});

test("keys that are none are refused", () => {
  const exchange = new Exchange(token);
  for (const key of [
    new Uint8Array(32),
    Uint8Array.of(1, ...Array(31).fill(0)),
    new Uint8Array(31),
  ]) {
    assert.equal(exchange.agree(key, []), undefined);
  }
});

test("a token that could be guessed is refused with the way to make one", () => {
  for (const short of ["", "x", "fifteen letters"]) {
    assert.throws(() => checkToken(short), /at least 16.*openssl rand -hex 16/s);
  }
  checkToken("sixteen letters!");
});
