import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "../errors.ts";
import { tokenizerFromJson } from "./tokenizer-file.ts";

const BYTE_LEVEL = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };

/** Returns a word-level BPE of a few letters. */
function fileWith(changes: object, model: object = {}): string {
  const vocab = Object.fromEntries(
    ["▁", "a", "b", "c", "<", ">", "ab"].map((token, id) => [token, id]),
  );
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: BYTE_LEVEL,
    post_processor: null,
    decoder: BYTE_LEVEL,
    model: { type: "BPE", dropout: null, unk_token: "<", vocab, merges: [["a", "b"]], ...model },
    ...changes,
  });
}

const split = (behavior: string, invert: boolean, pattern: object = { Regex: "c|ab" }) => ({
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [{ type: "Split", pattern, behavior, invert }, BYTE_LEVEL],
  },
});
const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };
const added = { id: 7, content: "<mask>", single_word: false, lstrip: false, rstrip: false };

test("supported options of a tokenizer.json are applied", () => {
  for (const file of [
    fileWith({}),
    fileWith(split("Isolated", false)),
    fileWith(split("Removed", true)),
    fileWith({ added_tokens: [{ ...added, normalized: false, special: true }] }),
  ]) {
    assert.deepEqual([...tokenizerFromJson(file, "t.json").encode("abc")], [6, 3]);
  }
});

test("options that would be ignored are refused by name", () => {
  const cases: readonly [string, RegExp][] = [
    [fileWith({ truncation: { max_length: 5 } }), /`truncation`/],
    [fileWith({ padding: { strategy: "BatchLongest" } }), /`padding`/],
    [fileWith({}, { dropout: 0.1 }), /`dropout`/],
    [fileWith({}, { continuing_subword_prefix: "##" }), /`continuing_subword_prefix`/],
    [fileWith({ pre_tokenizer: { type: "Whitespace" } }, { fuse_unk: true }), /`fuse_unk`/],
    [fileWith({ added_tokens: [{ ...added, single_word: true }] }), /`single_word`/],
    [fileWith({ normalizer: { type: "Nmt" } }), /normalizer Nmt/],
    [fileWith({ pre_tokenizer: { type: "UnicodeScripts" } }), /pre-tokenizer UnicodeScripts/],
    [fileWith(split("MergedWithNext", false)), /Split with `behavior` MergedWithNext/],
    [fileWith(split("Isolated", true)), /`invert` true/],
    [fileWith(split("Removed", true, { String: "a" })), /Split with `behavior` Removed/],
  ];
  for (const [file, expected] of cases) {
    assert.throws(
      () => tokenizerFromJson(file, "t.json"),
      (error) => {
        assert(error instanceof LockstepError);
        assert.equal(error.code, "DATA_FORMAT");
        assert.match(error.message, expected);
        return true;
      },
    );
  }
});

test("a text with an added token is refused if that token would change the tokens after it", () => {
  const file = fileWith({ pre_tokenizer: metaspace, added_tokens: [added] });
  const tokenizer = tokenizerFromJson(file, "t.json");
  assert.equal(tokenizer.encode("ab").length, 2);
  assert.throws(() => tokenizer.encode("ab <mask> ab"), /contains "<mask>"/);
});
