/**
 * Refuses what a `tokenizer.json` asks for and the library for JavaScript does not do, or does in another way than Hugging Face's own: each was
 * compared with it (tokenizers 0.22, in Python) on texts with other scripts, digits, spaces and tokens inside.
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

/** Throws DATA_FORMAT naming the option; `path` is for its sentence. */
export function checkTokenizer(json: object, path: string): void {
  const { truncation, padding, model, normalizer, pre_tokenizer, added_tokens } = json as Json;
  const refuse = (option: string, hint = "Set it otherwise in the file."): never => {
    throw new LockstepError("DATA_FORMAT", `"${path}": ${option} is not supported.`, {
      hint,
      fields: { path },
    });
  };
  // Samples are windows of a stream of tokens: nothing is cut off or filled up.
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
      'Set "dropout": null: the same text is to give the same tokens.',
    );
  }
  if (model["type"] !== "BPE") return;
  if (isSet(model["continuing_subword_prefix"]))
    refuse("`continuing_subword_prefix` of a BPE model");
  // On the bytes of a text nothing is unknown.
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
 * Throws DATA_FORMAT for a text that holds an added token, where that token would change how the text after it is cut: after one, the library begins
 * a new text, and puts a space before it that is not there.
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
      `The text holds "${found}", which is a token of its own in "${path}"; with the pre-tokenizer Metaspace that is not supported.`,
      {
        hint: "Take such tokens out of the text, or out of the file's `added_tokens`.",
        fields: { path },
      },
    );
  };
}

/** A part, or those that a Sequence holds under `key`. */
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
