import assert from "node:assert/strict";
import { chmod, symlink } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { inputsOf, readSamples } from "../../test/support/batch.ts";
import { withFolder } from "../../test/support/folder.ts";
import type { LockstepError } from "../errors.ts";
import { type Document, loadDocuments } from "./document.ts";
import { findFiles } from "./find.ts";
import { openData } from "./open.ts";
import type { Dataset, TextPart } from "./source.ts";
import { splitDocuments } from "./split.ts";
import { byteStore } from "./store.ts";
import { text } from "./text.ts";

const INPUTS = inputsOf({ ids: ["int32", [2, 8]], targets: ["int32", [2, 8]] });

/** Returns a page of lines that no other page has. */
function page(name: string, lines = 40): string {
  return Array.from(
    { length: lines },
    (_, i) => `${name} says line number ${i}, and means it\n`,
  ).join("");
}

async function textOf(part: TextPart | undefined): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of part?.bytes() ?? []) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

async function allIds(dataset: Dataset, which: "train" | "validation"): Promise<string> {
  const set = dataset[which];
  if (set === undefined) return "";
  const { ids } = await readSamples(set, INPUTS, [...Array(set.length).keys()]);
  return Buffer.from(ids ?? []).toString();
}

test("windows follow each other without overlap, and targets are shifted by one token", () =>
  withFolder({ "a.txt": "abcdefghijklmnopqrstuvwxyz" }, async (baseDir) => {
    const dataset = await openData(text("*.txt", { heldOut: 0 }), { inputs: INPUTS, baseDir });
    assert.equal(dataset.train.length, 3); // 27 tokens with the separator: [0, 9), [8, 17), [16, 25)
    assert.equal(dataset.validation, undefined);
    const { ids, targets } = await readSamples(dataset.train, INPUTS, [2, 0]);
    assert.equal(Buffer.from(ids ?? []).toString(), "qrstuvwxabcdefgh");
    assert.equal(Buffer.from(targets ?? []).toString(), "rstuvwxybcdefghi");
  }));

test("a stride smaller than the context makes overlapping windows, and int64 inputs are fed too", () =>
  withFolder({ "a.txt": "abcdefghijklmnopqrstuvwxyz" }, async (baseDir) => {
    const inputs = inputsOf({ tokens: ["int64", [1, 8]] });
    const source = text("a.txt", { heldOut: 0, stride: 3, fields: { tokens: "ids" } });
    const dataset = await openData(source, { inputs, baseDir });
    assert.equal(dataset.train.length, 7);
    const { tokens } = await readSamples(dataset.train, inputs, [6]);
    assert.equal(Buffer.from(tokens ?? []).toString(), "stuvwxyz");
  }));

test("files have the same order everywhere: by the code units of their paths", () =>
  withFolder(
    { "b/x.md": "1", "a.md": "2", "Z.md": "3", "ä.md": "4", "b.md": "5" },
    async (baseDir) => {
      const names = (await findFiles(["**/*.md"], { baseDir })).map(({ name }) => name);
      assert.deepEqual(names, ["Z.md", "a.md", "b.md", "b/x.md", "ä.md"]);
      assert.deepEqual(
        await findFiles(["**/*.md", "b/*.md"], { baseDir }),
        await findFiles(["b/*", "**/*.md"], { baseDir }),
      );
    },
  ));

test("files outside the base folder and absolute paths are found", () =>
  withFolder({ "data/a.txt": page("a"), "run/x": "" }, async (folder) => {
    assert.equal((await findFiles(["../data/*.txt"], { baseDir: join(folder, "run") })).length, 1);
    assert.equal(
      (await findFiles([join(folder, "data/*.txt")], { baseDir: join(folder, "run") })).length,
      1,
    );
  }));

test("a copy of a file is left out, whatever its name", () =>
  withFolder(
    { "a.txt": page("one"), "b/c.txt": page("one"), "d.txt": page("two") },
    async (baseDir) => {
      await symlink(join(baseDir, "d.txt"), join(baseDir, "link.txt"));
      const dataset = await openData(text("**/*.txt", { heldOut: 0 }), { inputs: INPUTS, baseDir });
      assert.match(dataset.summary, /^2 files \(and 2 copies left out\), .* nothing held out$/);
      assert.equal(await textOf(dataset.text?.train), `${page("one")}\0${page("two")}\0`);
    },
  ));

test("whole files are held out, and none of their lines is trained on", () =>
  withFolder(
    Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`file-${i}.txt`, page(`page ${i}`)])),
    async (baseDir) => {
      const dataset = await openData(text("*.txt", { heldOut: 0.1 }), { inputs: INPUTS, baseDir });
      const held = await textOf(dataset.text?.validation);
      const train = new Set((await textOf(dataset.text?.train)).split(/[\n\0]/));
      const heldLines = held.split(/[\n\0]/).filter((line) => line !== "");
      assert.ok(
        heldLines.length % 40 === 0 && heldLines.length >= 4 * 40 && heldLines.length <= 8 * 40,
      );
      for (const line of heldLines) assert.ok(!train.has(line), line);
      assert.ok(held.startsWith(await allIds(dataset, "validation")));
      const again = await openData(text("*.txt", { heldOut: 0.1 }), { inputs: INPUTS, baseDir });
      assert.equal(await textOf(again.text?.validation), held);
    },
  ));

test("near-duplicates are on one side: versions, translations of a build, a copy inside a larger file", async () => {
  const documents = Array.from({ length: 40 }, (_, i): [string, string][] => {
    const body = page(`module ${i}`);
    return [
      [`v1/mod${i}.d.ts`, body],
      [`v1/mod${i}.d.cts`, `short`],
      [`v2/other${i}.txt`, body.replaceAll("line number 7", "line no. 7").replace("says", "said")],
      [`all/${i}-bundle.txt`, `${page(`prelude ${i}`, 30)}${body}`],
    ];
  }).flat();
  const licence = "This line of a licence is in every file, as lines of licences are.\n".repeat(3);
  const split = await splitDocuments(
    documents.map(([name, body]): Document => {
      const content = Buffer.from(licence + body);
      return { name, path: undefined, offset: 0, byteLength: content.length, content };
    }),
    0.2,
  );
  const held = new Set(
    split.validation.map(({ name }) => /\d+(?=\D*$)/.exec(name.replace("-bundle", ""))?.[0]),
  );
  assert.ok(held.size >= 6 && held.size <= 10, `${held.size} modules held out`);
  assert.equal(split.validation.length, held.size * 4);
});

test("the tail of a single file is held out, from the start of a line on", () =>
  withFolder({ "a.txt": page("long", 200) }, async (baseDir) => {
    const dataset = await openData(text("a.txt", { heldOut: 0.1 }), { inputs: INPUTS, baseDir });
    const train = await textOf(dataset.text?.train);
    const held = await textOf(dataset.text?.validation);
    assert.equal(train.slice(0, -1) + held.slice(0, -1), page("long", 200));
    assert.match(held, /^long says/);
    assert.ok(Math.abs(held.length / page("long", 200).length - 0.1) < 0.02);
  }));

test("text that is too short for validation is trained on", () =>
  withFolder({ "a.txt": page("short", 3) }, async (baseDir) => {
    const dataset = await openData(text("a.txt"), { inputs: INPUTS, baseDir });
    assert.equal(dataset.validation, undefined);
    assert.equal(await textOf(dataset.text?.train), `${page("short", 3)}\0`);
    assert.match(dataset.summary, /nothing held out/);
  }));

test("without a newline the tail begins between two characters", async () => {
  const content = Buffer.from("€".repeat(1000));
  const { train, validation } = await splitDocuments(
    [{ name: "a", path: undefined, offset: 0, byteLength: content.length, content }],
    0.05,
  );
  for (const { content: part } of [...train, ...validation]) {
    assert.match(new TextDecoder("utf-8", { fatal: true }).decode(part), /^€+$/);
  }
});

test("text too large for memory is read by ranges, with the same bytes", () =>
  withFolder(
    { "a.txt": page("a", 7), "b.txt": page("b", 1), "c.txt": page("c", 9) },
    async (baseDir) => {
      const files = await findFiles(["*.txt"], { baseDir });
      const inMemory = byteStore(await loadDocuments(files), 0);
      const ranges = byteStore(await loadDocuments(files, 10), 0);
      const dropped = byteStore(await loadDocuments(files), 0, 10);
      assert.equal(ranges.byteLength, inMemory.byteLength);
      for (let start = 0; start < inMemory.byteLength; start += 13) {
        const length = Math.min(50 + start, inMemory.byteLength - start);
        const expected = Buffer.from(await inMemory.read(start, length));
        for (const store of [ranges, dropped]) {
          assert.deepEqual(Buffer.from(await store.read(start, length)), expected);
        }
      }
      await Promise.all([ranges.close(), dropped.close()]);
      const part = await splitDocuments(await loadDocuments(files, 10), 0.3);
      const whole = await splitDocuments(await loadDocuments(files), 0.3);
      assert.deepEqual(
        part.validation.map(({ name, byteLength }) => [name, byteLength]),
        whole.validation.map(({ name, byteLength }) => [name, byteLength]),
      );
    },
  ));

test("a tokenizer.json is used, and bytes are still counted", () =>
  withFolder({ "a.txt": page("a"), "tokenizer.json": smallBpe() }, async (baseDir) => {
    const source = text("a.txt", { heldOut: 0.2, tokenizer: "tokenizer.json" });
    const dataset = await openData(source, { inputs: INPUTS, baseDir });
    assert.equal(dataset.text?.tokenizer.kind, "bpe");
    const { train, validation } = dataset.text;
    assert.equal(train.byteLength + (validation?.byteLength ?? 0), page("a").length + 2);
    assert.ok(train.tokens < train.byteLength);
    const { ids } = await readSamples(dataset.train, INPUTS, [0]);
    assert.equal(dataset.text.tokenizer.decode(ids ?? []), "a says line ");
  }));

/** Returns a BPE over bytes with one merge for every pair in `says line number`. */
function smallBpe(): string {
  const vocab: Record<string, number> = { Ġ: 0 };
  for (let byte = 33; byte < 127; byte++) vocab[String.fromCharCode(byte)] = byte;
  vocab["Ċ"] = 10;
  const merges = ["s a", "y s", "l i", "n e", "n u", "m b", "Ġ s"];
  for (const [index, merge] of merges.entries()) vocab[merge.replace(" ", "")] = 128 + index;
  const pre = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return JSON.stringify({
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: pre,
    post_processor: null,
    decoder: pre,
    model: { type: "BPE", vocab, merges, unk_token: null },
  });
}

function failure(promise: Promise<unknown>): Promise<LockstepError> {
  return promise.then(
    () => assert.fail("it should have failed"),
    (error: LockstepError) => error,
  );
}

test("errors name the glob and the folder, the numbers, and both sides", () =>
  withFolder({ "a.txt": "tiny", "empty.md": "" }, async (baseDir) => {
    const open = (source: ReturnType<typeof text>, inputs = INPUTS, batch?: number) =>
      failure(openData(source, { inputs, baseDir, ...(batch === undefined ? {} : { batch }) }));

    const none = await open(text("docs/*.md"));
    assert.equal(none.code, "DATA_EMPTY");
    assert.ok(none.message.includes(`No file matches "docs/*.md" in "${baseDir}"`), none.message);
    assert.match((await open(text("*.md"))).message, /All 1 files that match "\*.md" .* are empty/);

    const small = await open(text("a.txt"));
    assert.equal(small.code, "DATA_TOO_SMALL");
    assert.deepEqual(small.fields, { batch: 2, samples: 0 });

    const unknown = await open(
      text("a.txt"),
      inputsOf({ ids: ["int32", [2, 8]], image: ["int32", [2, 8]] }),
    );
    assert.equal(unknown.code, "DATA_FORMAT");
    assert.match(
      unknown.message,
      /input "image" \(int32\[2, 8\]\) needs a field "image".*\n.*"ids".*"targets"/s,
    );
    const flat = await open(text("a.txt"), inputsOf({ ids: ["int32", [2]] }));
    assert.match(flat.message, /\[batch, context\].*"ids" is int32\[2\]/);
    const float = await open(text("a.txt"), inputsOf({ ids: ["float32", [2, 8]] }));
    assert.match(float.message, /token ids.*"ids" is float32\[2, 8\]/);
    const renamed = await open(text("a.txt", { fields: { nothing: "ids" } }));
    assert.match(renamed.message, /`fields` names the input "nothing"/);
    for (const options of [{ heldOut: 2 }, { stride: 0 }]) {
      assert.throws(() => text("a.txt", options), { code: "INVALID_OPTION" });
      const stated = { ...text("a.txt"), ...options };
      assert.equal((await open(stated)).code, "INVALID_OPTION");
    }
    assert.equal((await open(text("a.txt", { tokenizer: "no.json" }))).code, "FILE_NOT_FOUND");
    const kind = await failure(
      openData({ kind: "telepathy" } as never, { inputs: INPUTS, baseDir }),
    );
    assert.equal(kind.code, "INVALID_OPTION");
  }));

test(
  "the error for a file without read permission names it",
  { skip: process.getuid?.() === 0 },
  () =>
    withFolder({ "a.txt": page("a"), "secret.txt": "x" }, async (baseDir) => {
      await chmod(join(baseDir, "secret.txt"), 0);
      const error = await failure(openData(text("*.txt"), { inputs: INPUTS, baseDir }));
      assert.equal(error.code, "IO_FAILED");
      assert.match(error.message, /Cannot read ".*secret.txt": permission denied/);
    }),
);
