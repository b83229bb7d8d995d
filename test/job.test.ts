/**
 * Jobs: what a run file states as data gives the same run when read back; changed jobs, and jobs
 * whose parts do not fit, are refused.
 */
import assert from "node:assert/strict";
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  arrays,
  csv,
  type DataSource,
  idxImages,
  jsonl,
  npy,
  safetensors,
  text,
} from "../src/data/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { LockstepError } from "../src/errors.ts";
import { add, mul } from "../src/functional/index.ts";
import { importGraph } from "../src/import/index.ts";
import { sealHead } from "../src/job/head.ts";
import { type JobHead, makeJob, openJob, readJobFolder, writeJob } from "../src/job/index.ts";
import { isBelow } from "../src/job/places.ts";
import { fromPlain, toPlain } from "../src/job/plain.ts";
import { VALUES_FILE } from "../src/job/schema.ts";
import { defineModel, linear } from "../src/nn/index.ts";
import { readModel } from "../src/onnx/index.ts";
import {
  adafactor,
  adam,
  adamw,
  cosine,
  lion,
  muon,
  type Optimizer,
  optimizerOf,
  rulesOf,
  type Schedule,
  scheduleOf,
  sgd,
  wsd,
} from "../src/optimizer/index.ts";
import { defineRun, openRunFolder, type Run, train } from "../src/run/index.ts";
import { tensorFrom } from "../src/tensor/index.ts";
import { withFolder } from "./support/folder.ts";
import { imageRun, plainRun, reportOf, textRun, tryRun, WORDS } from "./support/runs.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());
const { signal } = new AbortController();
const never = { engine, signal, now: () => 0, onEvent: () => undefined };

/** Makes a job of a run, writes it, and returns its folder. */
async function jobOf(run: Run, folder: string): Promise<string> {
  const { files } = await makeJob(run, { baseDir: folder, root: folder, signal });
  await writeJob(join(folder, "job"), files);
  return join(folder, "job");
}

/** Trains a job's folder as `tryRun` trains a run. Returns the hash of the weights. */
async function trainJob(job: string, root: string): Promise<string> {
  const opened = openJob(readJobFolder(job));
  opened.check();
  const out = join(root, "of-job");
  await train(opened.run, {
    ...never,
    folder: await openRunFolder(out),
    baseDir: opened.baseIn([root]),
    roots: [root],
    holds: opened.holds,
    beginning: "anew",
  });
  return reportOf(out).weightsSha256;
}

/** A model, a layer and a loss of the user's own. */
const own = defineModel("own", (m) => {
  const x = m.input("x", [m.batch, 3]);
  const y = m.input("y", [m.batch, 2]);
  const scale = m.child("scale").parameter("weight", [2], { kind: "constant", value: 0.3 });
  const out = mul(linear(m.child("out"), x, { outputs: 2 }), scale);
  const wrong = add(out, mul(y, -1));
  return { loss: m.builder.one("ReduceMean", [mul(wrong, wrong)], { keepdims: 0 }), out };
});
const ownRun = defineRun({
  name: "own",
  model: own,
  data: arrays({
    x: tensorFrom(
      "float32",
      [24, 3],
      Array.from({ length: 72 }, (_, i) => Math.sin(i)),
    ),
    y: tensorFrom(
      "float32",
      [24, 2],
      Array.from({ length: 48 }, (_, i) => Math.cos(i)),
    ),
  }),
  optimizer: muon({ learningRate: 0.01, matrices: { exclude: /^scale/i } }),
  schedule: wsd({ decay: 3, warmup: 1, shape: "sqrt" }),
  batch: 6,
  microBatches: 3,
  steps: 5,
});

for (const run of [textRun, imageRun, plainRun, ownRun]) {
  test(`${run.name}: the job gives the weights of the run, to the last bit`, () =>
    withFolder({ "words.txt": WORDS }, async (folder) => {
      await tryRun(run, { engine, folder });
      const expected = reportOf(join(folder, "out"));
      assert.equal(await trainJob(await jobOf(run, folder), folder), expected.weightsSha256);
      const { validationLoss, sample, modelBatch, notes } = reportOf(join(folder, "of-job"));
      assert.deepEqual(
        [validationLoss, sample, modelBatch, notes],
        [expected.validationLoss, expected.sample, expected.modelBatch, expected.notes],
      );
      for (const file of ["model.onnx", "model.safetensors"]) {
        const [one, other] = ["out", "of-job"].map((out) => readFileSync(join(folder, out, file)));
        assert.ok(one?.equals(other as Buffer), file);
      }
    }));
}

test("the graphs of a job are models that anyone can open, and job.json is readable text", () =>
  withFolder({ "words.txt": WORDS }, async (folder) => {
    const job = await jobOf(textRun, folder);
    const names = readdirSync(job);
    assert.ok(names.includes("train-2.onnx") && names.includes("eval-exported-1.onnx"), `${names}`);
    const { graph } = importGraph(readModel(join(job, "train-2.onnx")));
    assert.ok(graph.nodes.length > 10);
    const head = readFileSync(join(job, "job.json"), "utf8");
    for (const words of [
      '"kind": "adamw"',
      '"globs"',
      '"words.txt"',
      '"microBatches": 2',
      '"kind": "normal"',
    ]) {
      assert.ok(head.includes(words), words);
    }
    assert.ok(!head.includes(folder), "it names no place of this machine");
  }));

test("two jobs of the same run are the same, byte for byte", () =>
  withFolder({ "words.txt": WORDS }, async (folder) => {
    const make = () => makeJob(textRun, { baseDir: folder, root: folder, signal });
    const bytesOf = ({ files }: Awaited<ReturnType<typeof make>>) =>
      [...files].map(([name, pieces]) => [name, Buffer.concat(pieces).toString("hex")]);
    assert.deepEqual(bytesOf(await make()), bytesOf(await make()));
  }));

const optimizers: readonly Optimizer[] = [
  adafactor({ eps: [undefined, 1e-4] }),
  adafactor(),
  adam({ betas: [0.8, 0.9] }),
  adamw({ decay: { include: /^B/i, maximumRank: 3 } }),
  lion({ weightDecay: 0.1 }),
  muon({ matrices: { exclude: "head" }, adamw: { learningRate: 1e-4 } }),
  sgd({ momentum: 0.9, nesterov: true }),
];

for (const optimizer of optimizers) {
  test(`${optimizer.kind} survives JSON`, () => {
    const text = JSON.stringify(toPlain(optimizer.options, "options"));
    const read = optimizerOf(
      optimizer.kind,
      fromPlain(JSON.parse(text) as never, "options") as object,
    );
    assert.deepEqual(read, optimizer);
    const context = { step: 7, learningRate: 0.1, gradientScale: 0.5, weightDecay: 0.01 };
    const scalars = (from: Optimizer) => rulesOf(from).map(({ rule }) => rule.scalars(context));
    assert.deepEqual(scalars(read), scalars(optimizer));
  });
}

test("schedules survive JSON, and unknown ones are refused", () => {
  for (const schedule of [cosine({ warmup: 3, final: 0.1 }), wsd({ decay: 2 })]) {
    const text = JSON.stringify(toPlain(schedule, "schedule"));
    assert.deepEqual(scheduleOf(JSON.parse(text) as Schedule), schedule);
  }
  assert.throws(() => scheduleOf({ kind: "eval" } as never), { code: "INVALID_OPTION" });
});

test("a value that cannot be written as data is refused by its place", () => {
  for (const value of [() => 1, Symbol("x"), new Map(), 1n]) {
    assert.throws(() => toPlain({ a: [value] }, "options"), {
      code: "NOT_DATA",
      message: /options\.a\[0\]/,
    });
  }
});

const sources: readonly DataSource[] = [
  text(["a/*.txt", "!a/b.txt"], { heldOut: 0.2, tokenizer: "t.json", stride: 3 }),
  jsonl("a.jsonl", { text: "text" }),
  csv("a.csv", { delimiter: "\t", columns: { x: ["a", "b"] }, categories: { c: ["u", "v"] } }),
  npy({ x: "x.npy" }, { fields: { input: "x" } }),
  safetensors("a.safetensors"),
  idxImages({ images: "i", labels: "l" }),
];

test("a place of data stays below its root, whatever a glob matches", () => {
  const good: readonly (readonly [string, string, boolean])[] = [
    ["", "a/b.txt", false],
    ["run", "../data/*.txt", true],
    ["a/b", "../../c", false],
    ["", "a..b/x", false],
    ["", "!a/*", true],
    ["", "[ab]/{c,d}.txt", true],
  ];
  const bad: readonly (readonly [string, string, boolean])[] = [
    ["", "/etc/passwd", false],
    ["", "../a", false],
    ["run", "../../a", false],
    ["", "a/../../b", false],
    ["", "!/etc/*", true],
    ["", "!../a", true],
    ["", "\\/etc/*", true],
    ["", "\\.\\./a", true],
    ["", "{a,../..}/b", true],
    ["", "{..,a}/b", true],
    ["a", "**/../../b", true],
    ["", "a\\..\\..\\b", false],
    ["", "C:/x", false],
    ["", "a\0b", false],
    ["", "", false],
  ];
  for (const [folder, place, isGlob] of good) assert.ok(isBelow(folder, place, isGlob), place);
  for (const [folder, place, isGlob] of bad) assert.ok(!isBelow(folder, place, isGlob), place);
});

/** Replaces a part of the job's head and seals it anew. */
function reseal(job: string, change: (head: JobHead) => unknown): void {
  const head = JSON.parse(readFileSync(join(job, "job.json"), "utf8")) as JobHead;
  const { sha256: _, ...changed } = { ...head, ...(change(head) as object) };
  writeFileSync(join(job, "job.json"), sealHead(changed).bytes);
}

const changes: readonly (readonly [string, string, RegExp, (head: JobHead) => unknown])[] = [
  [
    "another version",
    "JOB_VERSION",
    /by lockstep 99\.0\.0, but this is/,
    () => ({ version: "99.0.0" }),
  ],
  ["another format", "JOB_VERSION", /made by/, () => ({ format: 2 })],
  ["no job", "JOB", /not the head of a job/, () => ({ lockstep: "model" })],
  ["an unknown field", "JOB", /more/, () => ({ more: 1 })],
  [
    "a batch beyond all bounds",
    "JOB",
    /run\.batch/,
    ({ run }) => ({ run: { ...run, batch: 2 ** 40 } }),
  ],
  [
    "micro-batches that do not divide",
    "INVALID_OPTION",
    /4 equal/,
    ({ run }) => ({ run: { ...run, microBatches: 4 } }),
  ],
  [
    "a batch that was not recorded",
    "JOB",
    /does not contain the model/,
    ({ run }) => ({ run: { ...run, batch: 12 } }),
  ],
  [
    "an unknown optimizer",
    "INVALID_OPTION",
    /no optimizer of the kind/,
    () => ({ optimizer: { kind: "eval", options: {} } }),
  ],
  [
    "an unknown option",
    "INVALID_OPTION",
    /no option "code"/,
    () => ({ optimizer: { kind: "adamw", options: { code: "1" } } }),
  ],
  [
    "an unknown source",
    "INVALID_OPTION",
    /no source of data/,
    ({ data }) => ({ data: { ...data, source: { kind: "function" } } }),
  ],
  [
    "an absolute path",
    "DATA_PLACE",
    /etc/,
    ({ data }) => ({ data: { ...data, source: { kind: "text", globs: ["/etc/*"] } } }),
  ],
  [
    "a path that leads out",
    "DATA_PLACE",
    /\.\.\/x/,
    ({ data }) => ({ data: { ...data, source: { kind: "text", globs: ["../x"] } } }),
  ],
  [
    "a folder that leads out",
    "DATA_PLACE",
    /\.\./,
    ({ data }) => ({ data: { ...data, folder: "a/../.." } }),
  ],
  [
    "a tokenizer that leads out",
    "DATA_PLACE",
    /secret/,
    ({ data }) => ({
      data: { ...data, source: { kind: "text", globs: ["words.txt"], tokenizer: "../secret" } },
    }),
  ],
  [
    "a file out of the folder",
    "JOB",
    /files/,
    ({ files }) => ({ files: { ...files, "../x.onnx": Object.values(files)[0] } }),
  ],
  [
    "a parameter of another shape",
    "JOB",
    /"out\.weight" as float32/,
    ({ model }) => ({
      model: changedForms(model, (own) => ({ ...own, type: own.type.replace("[", "[7, ") })),
    }),
  ],
  [
    "a parameter that no graph has",
    "JOB",
    /no input "x\./,
    ({ model }) => ({ model: changedForms(model, (own) => ({ ...own, name: `x.${own.name}` })) }),
  ],
  [
    "a loss that is no output",
    "JOB",
    /no output "gone"/,
    ({ model }) => ({
      model: { ...model, forms: model.forms.map((form) => ({ ...form, loss: "gone" })) },
    }),
  ],
  [
    "a graph of another size",
    "JOB",
    /not of|does not contain/,
    ({ model }) => ({
      model: { ...model, builds: model.builds.map((own) => ({ ...own, batch: own.batch + 1 })) },
    }),
  ],
];

function changedForms(
  model: JobHead["model"],
  change: (parameter: JobHead["model"]["forms"][number]["parameters"][number]) => unknown,
): unknown {
  const forms = model.forms.map((form) => ({
    ...form,
    parameters: form.parameters.map((own) => (own.name === "out.weight" ? change(own) : own)),
  }));
  return { ...model, forms };
}

test("a made-up job that is sealed like ours: each fault has a code, and nothing is trained", () =>
  withFolder({ "words.txt": WORDS }, async (folder) => {
    const good = await jobOf(ownRun, folder);
    for (const [what, code, message, change] of changes) {
      const job = join(folder, "bad");
      cpSync(good, job, { recursive: true });
      reseal(job, change);
      await assert.rejects(
        trainJob(job, folder),
        (error) => {
          assert.ok(error instanceof LockstepError, `${what}: ${String(error)}`);
          assert.equal(error.code, code, `${what}: ${error.message}`);
          assert.match(error.message, message, what);
          return true;
        },
        what,
      );
      assert.ok(!readdirSync(folder).includes("of-job"), what);
    }
  }));

test("one changed byte anywhere in any file of a job is found", () =>
  withFolder({}, async (folder) => {
    const job = await jobOf(ownRun, folder);
    const opened = () => openJob(readJobFolder(job)).check();
    for (const name of readdirSync(job)) {
      const path = join(job, name);
      const good = readFileSync(path);
      const places = Array.from({ length: 40 }, (_, i) => Math.floor((i * good.length) / 40));
      for (const at of [...places, good.length - 1, good.length - 2, good.length - 5]) {
        const bad = Buffer.from(good);
        bad[at] = (bad[at] as number) ^ 1;
        writeFileSync(path, bad);
        assert.throws(
          opened,
          { code: "FILE_CORRUPT", message: new RegExp(name) },
          `${name} at ${at}`,
        );
      }
      for (const bad of [good.subarray(0, -1), Buffer.concat([good, Buffer.of(32)])]) {
        writeFileSync(path, bad);
        assert.throws(opened, { code: "FILE_CORRUPT", message: new RegExp(name) });
      }
      renameSync(path, `${path}.gone`);
      assert.throws(opened, { code: "FILE_NOT_FOUND" });
      writeFileSync(path, good);
    }
    opened();
  }));

test("a graph whose constants lie where no value does, and a value of another type, are refused", () =>
  withFolder({}, async (folder) => {
    const { head, files } = await makeJob(ownRun, { baseDir: folder, root: folder, signal });
    const bytes = (name: string) => Buffer.concat(files.get(name) ?? []);
    const form = { ...head.model.forms[0], parameters: [] } as JobHead["model"]["forms"][number];
    const tensor = { kind: "tensor", tensor: "data/x" } as const;
    const cases: readonly JobHead["model"]["forms"][] = [
      head.model.forms.map(() => form),
      head.model.forms.map((own) => ({
        ...own,
        parameters: own.parameters.map((parameter) => ({ ...parameter, initial: tensor })),
      })),
    ];
    for (const forms of cases) {
      const bad = { ...head, model: { ...head.model, forms } };
      assert.throws(() => openJob({ head: bad, bytes }).check(), { code: "JOB" });
    }
    const without = {
      ...head,
      files: Object.fromEntries(
        Object.entries(head.files).filter(([name]) => name !== VALUES_FILE),
      ),
    };
    assert.throws(() => openJob({ head: without, bytes }), {
      code: "JOB",
      message: /data\/x|no "/,
    });
  }));

test("a file in the place of a job's folder is refused, and stays", () =>
  withFolder({ "words.txt": WORDS, notes: "of the user" }, async (folder) => {
    const { files } = await makeJob(textRun, { baseDir: folder, root: folder, signal });
    const message = /Cannot write ".*notes": a part of its path is a file, not a folder/;
    await assert.rejects(writeJob(join(folder, "notes"), files), { code: "IO_FAILED", message });
    assert.equal(readFileSync(join(folder, "notes"), "utf8"), "of the user");
  }));

test("data outside the roots is refused, also through links; several roots are searched", () =>
  withFolder({ "a/words.txt": WORDS, "b/words.txt": WORDS }, async (folder) => {
    const [a, b] = [join(folder, "a"), join(folder, "b")];
    const { files } = await makeJob(textRun, { baseDir: a, root: a, signal });
    const job = join(folder, "job");
    await writeJob(job, files);
    const roots = join(folder, "roots");
    mkdirSync(roots);
    symlinkSync(join(b, "words.txt"), join(roots, "words.txt"));
    await assert.rejects(trainJob(job, roots), {
      code: "DATA_PLACE",
      message: /"words\.txt" lies outside/,
    });
    const opened = openJob(readJobFolder(job));
    assert.equal(opened.baseIn([join(folder, "none"), b]), b);
    const trained = train(opened.run, {
      ...never,
      folder: await openRunFolder(join(folder, "linked")),
      baseDir: roots,
      roots: [roots, b],
      holds: opened.holds,
      beginning: "anew",
    });
    assert.equal((await trained).outcome, "finished");
  }));

test("data that differs from what the job was made with is refused", () =>
  withFolder({ "words.txt": WORDS }, async (folder) => {
    const job = await jobOf(textRun, folder);
    writeFileSync(join(folder, "words.txt"), WORDS.replace("cat", "cow"));
    await assert.rejects(trainJob(job, folder), {
      code: "DATA_DIFFERS",
      message: /The data here is \d+ samples/,
    });
  }));

test("a job names only data below its root, whatever source names it", async () => {
  for (const data of sources) {
    const run = defineRun({ ...textRun.stated, data });
    const outside = makeJob(run, { baseDir: "/a/b", root: "/c", signal });
    await assert.rejects(outside, { code: "DATA_PLACE" });
  }
  for (const data of [
    text("/etc/*"),
    text("../../x"),
    npy({ x: "/etc/x.npy" }),
    idxImages({ images: "../../i", labels: "l" }),
  ]) {
    const run = defineRun({ ...textRun.stated, data });
    const outside = makeJob(run, { baseDir: "/a/b", root: "/a", signal });
    await assert.rejects(outside, { code: "DATA_PLACE" });
  }
});

test("a job can be made without its data, and records what is then assumed", () =>
  withFolder({ "there/words.txt": WORDS.repeat(4) }, async (folder) => {
    const here = { baseDir: folder, root: folder, signal };
    await assert.rejects(makeJob(textRun, here), { code: "DATA_EMPTY" });
    const { head, files } = await makeJob(textRun, { ...here, mayLackData: true });
    assert.equal(head.data.holds, undefined);
    await writeJob(join(folder, "job"), files);
    await trainJob(join(folder, "job"), join(folder, "there"));
  }));
