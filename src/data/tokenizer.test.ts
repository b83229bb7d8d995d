import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { byteAlphabet, byteTokenizer } from "./tokenizer-bytes.ts";
import { tokenizerFromJson } from "./tokenizer-file.ts";

/** Text of any kind: ASCII, emoji, combining marks, and what a document may begin with. */
const anyText = fc.string({ unit: "binary", maxLength: 60 });

test("bytes: any text is decoded again, at once and byte by byte", () => {
  const tokenizer = byteTokenizer();
  fc.assert(
    fc.property(anyText, (text) => {
      const ids = tokenizer.encode(text);
      assert.equal(tokenizer.decode(ids), text);
      const decoder = tokenizer.decoder();
      const streamed = Array.from(ids, (id) => decoder.push(id)).join("") + decoder.end();
      assert.equal(streamed, text);
    }),
  );
});

test("bytes: any bytes decode to the same text at once and streamed, with U+FFFD for invalid ones", () => {
  const tokenizer = byteTokenizer();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const decoder = tokenizer.decoder();
      const streamed = Array.from(bytes, (id) => decoder.push(id)).join("") + decoder.end();
      assert.equal(streamed, tokenizer.decode(bytes));
    }),
  );
});

test("bytes: a character is held back until it is complete", () => {
  const decoder = byteTokenizer().decoder();
  assert.deepEqual(
    [...Buffer.from("aé€😀")].map((byte) => decoder.push(byte)),
    ["a", "", "é", "", "", "€", "", "", "", "😀"],
  );
  decoder.push(0xe2);
  assert.equal(decoder.end(), "\ufffd");
});

test("bytes: tokenizer.json has 256 symbols in the order of their bytes, and is recognized again", () => {
  const json = byteTokenizer().toJson();
  const parsed = JSON.parse(json) as {
    model: { vocab: Record<string, number>; merges: unknown[] };
  };
  assert.deepEqual(
    Object.values(parsed.model.vocab).sort((a, b) => a - b),
    [...Array(256).keys()],
  );
  assert.equal(parsed.model.vocab["Ġ"], 32);
  assert.equal(parsed.model.vocab["A"], 65);
  assert.deepEqual(parsed.model.merges, []);
  assert.equal(tokenizerFromJson(json, "tokenizer.json").kind, "bytes");
});

/**
 * Returns a byte-level BPE that merges `t h`, `th e` and the bytes of `é`, and has one special
 * token.
 */
function smallBpe(): string {
  const json = JSON.parse(byteTokenizer().toJson()) as {
    model: { vocab: Record<string, number>; merges: string[] };
    added_tokens: object[];
    pre_tokenizer: { use_regex: boolean };
  };
  const [first, second] = [...Buffer.from("é")].map((byte) => byteAlphabet()[byte]) as [
    string,
    string,
  ];
  json.model.merges = ["t h", "th e", `${first} ${second}`];
  Object.assign(json.model.vocab, { th: 256, the: 257, [first + second]: 258 });
  json.added_tokens = [
    {
      id: 259,
      content: "<|endoftext|>",
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    },
  ];
  json.pre_tokenizer.use_regex = true;
  return JSON.stringify(json);
}

test("bpe: merges apply, special tokens separate, and text is decoded again, streamed or not", () => {
  const tokenizer = tokenizerFromJson(smallBpe(), "tokenizer.json");
  assert.equal(tokenizer.kind, "bpe");
  assert.equal(tokenizer.size, 260);
  assert.equal(tokenizer.separator, 259);
  assert.deepEqual([...tokenizer.encode("the thé")], [257, 32, 256, 258]);
  fc.assert(
    fc.property(anyText, (text) => {
      const ids = tokenizer.encode(text);
      assert.equal(tokenizer.decode(ids), text);
      const decoder = tokenizer.decoder();
      assert.equal(Array.from(ids, (id) => decoder.push(id)).join("") + decoder.end(), text);
    }),
  );
});

test("a file that is not a tokenizer.json is refused by name", () => {
  for (const json of ["", "{", "[]", "null", "{}", '{"model":{"type":"Nonsense"}}']) {
    assert.throws(() => tokenizerFromJson(json, "my/tokenizer.json"), {
      code: "FILE_CORRUPT",
      message: /"my\/tokenizer.json" is not a tokenizer.json/,
    });
  }
});
