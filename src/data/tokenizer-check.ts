/**
 * Refuses what a `tokenizer.json` asks for and what the JavaScript library does not do, or does
 * differently from Hugging Face's own. Each option was compared (with tokenizers 0.22, in Python)
 * on texts with other scripts, digits, spaces and added tokens.
 */
import { LockstepError } from "../errors.ts";

type Json = Readonly<Record<string, unknown>>;

const NORMALIZERS = [
  "BertNormalizer",
  "Lowercase",
  "NFC",
  "NFD",
  "NFKC",
  "NFKD",
  "Precompiled",
  "Prepend",
  "Replace",
  "Sequence",
  "Strip",
  "StripAccents",
];
const PRE_TOKENIZERS = [
  "BertPreTokenizer",
  "ByteLevel",
  "Digits",
  "Metaspace",
  "Punctuation",
  "Sequence",
  "Split",
  "Whitespace",
  "WhitespaceSplit",
];

/** Throws DATA_FORMAT naming the option; `path` is used in its message. */
export function checkTokenizer(json: object, path: string): void {
  const { truncation, padding, model, normalizer, pre_tokenizer, added_tokens } = json as Json;
  const refuse = (option: string, hint = "Change this option in the file."): never => {
    throw new LockstepError("DATA_FORMAT", `"${path}": ${option} is not supported.`, {
      hint,
      fields: { path },
    });
  };
  // Samples are windows of a stream of tokens: nothing is truncated or padded.
  for (const [name, value] of Object.entries({ truncation, padding })) {
    if (isSet(value))
      refuse(`\`${name}\``, `Set "${name}": null; samples are cut from a stream of tokens.`);
  }
  checkModel(objectOf(model), hasByteLevel(pre_tokenizer), refuse);
  for (const token of listOf(added_tokens)) {
    if (token["single_word"] === true) refuse("`single_word` of an added token");
  }
  for (const { type } of partsOf(normalizer, "normalizers")) {
    if (!NORMALIZERS.includes(String(type))) refuse(`the normalizer ${String(type)}`);
  }
  for (const part of partsOf(pre_tokenizer, "pretokenizers")) checkPreTokenizer(part, refuse);
}

type Refuse = (option: string, hint?: string) => never;

function checkModel(model: Json, byteLevel: boolean, refuse: Refuse): void {
  if (Number(model["dropout"] ?? 0) > 0) {
    refuse(
      "`dropout` of the model",
      'Set "dropout": null, so that the same text always gives the same tokens.',
    );
  }
  if (model["type"] !== "BPE") return;
  if (isSet(model["continuing_subword_prefix"]))
    refuse("`continuing_subword_prefix` of a BPE model");
  // At the level of bytes, no text is unknown.
  if (byteLevel || !isSet(model["unk_token"])) return;
  if (model["fuse_unk"] === true) refuse("`fuse_unk` of a BPE model");
  if (isSet(model["end_of_word_suffix"]))
    refuse("`end_of_word_suffix` of a BPE model with `unk_token`");
}

function checkPreTokenizer(part: Json, refuse: Refuse): void {
  const { type, behavior, invert } = part;
  if (!PRE_TOKENIZERS.includes(String(type))) refuse(`the pre-tokenizer ${String(type)}`);
  const isRegex = isSet(objectOf(part["pattern"])["Regex"]);
  if (type === "Split") {
    const isolates = behavior === "Isolated" && invert !== true;
    const matches = behavior === "Removed" && invert === true && isRegex;
    if (!isolates && !matches) refuse(`Split with \`behavior\` ${behavior}, \`invert\` ${invert}`);
  }
  const kept = ["Isolated", "Contiguous"].includes(String(behavior ?? "Isolated"));
  if (type === "Punctuation" && !kept) refuse(`Punctuation with \`behavior\` ${behavior}`);
}

/**
 * Throws DATA_FORMAT for a text with an added token that would change how the text after it is
 * tokenized: after such a token, the library begins a new text, and inserts a space before it that
 * is not there.
 */
export function addedTokenCheck(json: object, path: string): (text: string) => void {
  const { pre_tokenizer, added_tokens } = json as Json;
  const isAffected = partsOf(pre_tokenizer, "pretokenizers").some(
    ({ type }) => type === "Metaspace",
  );
  const contents = isAffected ? listOf(added_tokens).map(({ content }) => String(content)) : [];
  return (text) => {
    const found = contents.find((content) => content !== "" && text.includes(content));
    if (found === undefined) return;
    throw new LockstepError(
      "DATA_FORMAT",
      `The text contains "${found}", which is a token of its own in "${path}"; with the pre-tokenizer Metaspace that is not supported.`,
      {
        hint: "Remove such tokens from the text, or from the file's `added_tokens`.",
        fields: { path },
      },
    );
  };
}

/** The part itself, or the parts that a Sequence holds under `key`. */
function partsOf(part: unknown, key: string): Json[] {
  if (!isSet(part)) return [];
  const own = objectOf(part);
  return [own, ...listOf(own[key]).flatMap((inner) => partsOf(inner, key))];
}

function hasByteLevel(preTokenizer: unknown): boolean {
  return partsOf(preTokenizer, "pretokenizers").some(({ type }) => type === "ByteLevel");
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== "";
}

function objectOf(value: unknown): Json {
  return typeof value === "object" && value !== null ? (value as Json) : {};
}

function listOf(value: unknown): Json[] {
  return Array.isArray(value) ? value.map(objectOf) : [];
}
