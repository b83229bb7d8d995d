/**
 * Every mistake of a user ends with status 1, one sentence with a code, and nothing half-written.
 * Each case runs the command itself, in a folder of its own.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { modelOf, node, someNumbers } from "../../src/import/raw.testing.ts";
import { withFolder } from "../support/folder.ts";
import { lockstep, runFiles } from "./support.ts";

const fixtures = join(dirname(fileURLToPath(import.meta.url)), "../../../test/onnx/fixtures");
const mlp = readFileSync(join(fixtures, "mlp-17.onnx"));

interface Case {
  /** The fields of the run that are replaced. */
  readonly run?: Readonly<Record<string, string>>;
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  /** Default: `train run.ts`. */
  readonly words?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A shell command that is run before. */
  readonly shell?: string;
  readonly code: string;
  readonly says: RegExp;
  /** The names in `runs/tiny` afterwards; undefined: no folder. */
  readonly leaves?: readonly string[];
}

/** Returns the fields of a run with a model from a file, and data that fits the fixture. */
const ofFile = (loss = 'crossEntropy({ logits: "output", labels: "label" })') => ({
  model: `onnx("model.onnx", { loss: ${loss} })`,
  data: 'csv("table.csv", { fields: {} })',
});

const unknown = modelOf({
  opset: 17,
  inputs: { x: ["batch", 2] },
  outputs: ["output"],
  nodes: [
    node("MatMul", ["x", "weight"], ["hidden"]),
    node("com.example::Magic", ["hidden"], ["output"]),
  ],
  weights: { weight: someNumbers([2, 3]) },
  domains: ["com.example"],
});
const mismatched = modelOf({
  opset: 17,
  inputs: { x: ["batch", 2] },
  outputs: ["output"],
  nodes: [node("MatMul", ["x", "weight"], ["output"])],
  weights: { weight: someNumbers([5, 3]) },
});

const CASES: Readonly<Record<string, Case>> = {
  "a missing run file": {
    words: ["train", "nope.ts"],
    code: "FILE_NOT_FOUND",
    says: /no run file "nope\.ts"/,
  },
  "a run file that is not TypeScript": {
    files: { "run.ts": 'import { gpt } from "lockstep";\nconst a = { b 4 };\n' },
    code: "RUN_FILE",
    says: /"run\.ts" does not load: .*run\.ts:2:\d+/s,
  },
  "a run file that throws": {
    files: { "run.ts": "const a: number = 1;\n\nthrow new Error(`no ${a}`);\n" },
    code: "RUN_FILE",
    says: /"run\.ts" does not load: no 1 \(line 3:\d+\)/,
  },
  "a run file that asks for what lockstep does not have": {
    files: { "run.ts": 'import { gtp } from "lockstep";\nexport default gtp({});\n' },
    code: "RUN_FILE",
    says: /gtp is not a function \(line 2:/,
  },
  "a run file that exports nothing": {
    files: { "run.ts": "export const run = 1;\n" },
    code: "RUN_FILE",
    says: /exports no run\.\s+Write: export default defineRun/,
  },
  "a run file that exports something else": {
    files: { "run.ts": "export default { model: 1 };\n" },
    code: "RUN_FILE",
    says: /exports no run/,
  },
  "code of a run file that fails when the model is built": {
    run: { model: '{ name: "own", build() { throw new TypeError("my own fault"); } }' },
    code: "RUN_FILE",
    says: /code of the run file failed.*my own fault.*run\.ts:\d+/s,
  },
  "a limit of memory that is no size": {
    words: ["train", "run.ts", "--recompute", "2 parsecs"],
    code: "INVALID_OPTION",
    says: /--recompute.*the word blocks, or a size of memory, as in 2GB/,
  },
  "a limit of memory that nothing reaches": {
    words: ["train", "run.ts", "--recompute", "10B"],
    code: "INVALID_OPTION",
    says: /activations of a micro-batch take .* computed again, which is more than the limit of 10 B.*Set the limit/s,
  },
  "what to compute again, in other words": {
    run: { recompute: '"all"' },
    code: "INVALID_OPTION",
    says: /recompute: must be "blocks", or \{ memory: "2 GB" \}/,
  },
  "a wrong option in the run": {
    run: { batch: "0", steps: "2.5" },
    code: "INVALID_OPTION",
    says: /batch: .*; steps: /,
  },
  "an unknown option": {
    words: ["train", "run.ts", "--step", "3"],
    code: "INVALID_OPTION",
    says: /unknown option '--step'\s+\(Did you mean --steps\?\)/,
  },
  "an option that is not a number": {
    words: ["train", "run.ts", "--steps", "many"],
    code: "INVALID_OPTION",
    says: /'many' is invalid\. It must be a whole number, 1 or more/,
  },
  "a batch that micro-batches do not divide": {
    run: { microBatches: "4" },
    words: ["train", "run.ts", "--batch", "6"],
    code: "INVALID_OPTION",
    says: /batch of 6 cannot be cut into 4 equal/,
  },
  "two options that exclude each other": {
    words: ["train", "run.ts", "--resume", "--anew"],
    code: "INVALID_OPTION",
    says: /--resume .*--anew/,
  },
  "a wrong shape, with the layer's name": {
    run: { model: "gpt({ layers: 1, width: 18, heads: 4, context: 16 })" },
    code: "INVALID_OPTION",
    says: /18.*4 heads/,
  },
  "no data": {
    words: ["train", "run.ts", "--data", "nothing/*.txt"],
    code: "DATA_EMPTY",
    says: /No file matches .*nothing\/\*\.txt/,
  },
  "empty data": {
    files: { "words.txt": "" },
    code: "DATA_EMPTY",
    says: /are empty/,
  },
  "a batch that is larger than the data": {
    words: ["train", "run.ts", "--batch", "1000"],
    code: "DATA_TOO_SMALL",
    says: /A batch is 1000 samples, but .* has only \d+/,
  },
  "text for a model of images": {
    run: { model: "mlp({ inputs: [1, 8, 8], hidden: [4], outputs: 3 })" },
    code: "DATA_FORMAT",
    says: /input "image" is float32\[2, 1, 8, 8\]/,
  },
  "a missing model": {
    run: ofFile(),
    code: "FILE_NOT_FOUND",
    says: /model\.onnx": there is no such file/,
  },
  "a truncated model": {
    run: ofFile(),
    files: { "model.onnx": mlp.subarray(0, 500) },
    code: "ONNX_PARSE",
    says: /model\.onnx is not a valid ONNX file/,
  },
  "a model of garbage": {
    run: ofFile(),
    files: { "model.onnx": "this is not a model" },
    code: "ONNX_PARSE",
    says: /model\.onnx is not a valid ONNX file/,
  },
  "an unknown operator": {
    run: ofFile(),
    files: { "model.onnx": unknown },
    code: "UNKNOWN_OPERATOR",
    says: /com\.example.*Magic/,
  },
  "a model whose shapes do not agree": {
    run: ofFile(),
    files: { "model.onnx": mismatched },
    code: "SHAPE_MISMATCH",
    says: /MatMul/,
  },
  "a loss of an output that the model does not have": {
    run: ofFile('crossEntropy({ logits: "scores", labels: "label" })'),
    files: { "model.onnx": mlp },
    code: "INVALID_OPTION",
    says: /scores/,
  },
  "a folder that cannot be written": {
    words: ["train", "run.ts", "--out", "words.txt/run"],
    code: "IO_FAILED",
    says: /Cannot write "words\.txt\/run"/,
  },
  "a folder for graphs that cannot be written": {
    words: ["train", "run.ts", "--dump", "words.txt/graphs"],
    code: "IO_FAILED",
    says: /Cannot write "words\.txt\/graphs"/,
  },
  "nothing to resume": {
    words: ["train", "run.ts", "--resume"],
    code: "CHECKPOINT",
    says: /nothing to resume in "runs.tiny"/,
  },
  "a damaged checkpoint": {
    files: { "runs/tiny/checkpoints/step-3/manifest.json": Buffer.alloc(200, 1) },
    words: ["train", "run.ts", "--resume"],
    code: "CHECKPOINT",
    says: /step-3.manifest\.json" is damaged: it is not a manifest/,
    leaves: ["checkpoints"],
  },
  "a damaged checkpoint of an earlier version": {
    files: { "runs/tiny/checkpoint.safetensors": Buffer.alloc(200, 1) },
    words: ["train", "run.ts", "--resume"],
    code: "FILE_CORRUPT",
    says: /checkpoint\.safetensors/,
    leaves: ["checkpoint.safetensors"],
  },
  "a manifest of another version": {
    files: { "runs/tiny/checkpoints/step-3/manifest.json": '{"format":"lockstep-checkpoint-9"}' },
    words: ["train", "run.ts", "--resume"],
    code: "CHECKPOINT",
    says: /the format lockstep-checkpoint-9, which this version cannot read/,
    leaves: ["checkpoints"],
  },
  "an unfinished run in the way": {
    files: { "runs/tiny/checkpoints/step-3/manifest.json": "of great value" },
    code: "RUN_EXISTS",
    says: /--resume, .*--anew .*--out\./,
    leaves: ["checkpoints"],
  },
  "a missing engine": {
    env: { LOCKSTEP_ORT_LIBRARY: "/nonexistent" },
    code: "ENGINE_LIBRARY",
    says: /no ONNX Runtime library at \/nonexistent/,
  },
  "a loss that is not finite": {
    run: { optimizer: "sgd({ learningRate: 1e30 })", checkpointEvery: "100" },
    code: "NOT_FINITE",
    says: /Step \d+: .*The first \w+ that is not finite is "[^"]+"/,
    leaves: [
      "checkpoints",
      "metrics.jsonl",
      "model.onnx",
      "model.safetensors",
      "run.json",
      "tokenizer.json",
    ],
  },
  "a full disk at a checkpoint": {
    shell: "ulimit -f 4",
    run: { evaluate: "{ every: 100 }", checkpointEvery: "1", name: '"tiny"' },
    code: "DISK_FULL",
    says: /Cannot write ".*checkpoints.step-\d+": /,
    leaves: ["metrics.jsonl", "run.json"],
  },
  "a full disk at the metrics, which alone stops nothing, and at the end": {
    shell: "ulimit -f 1",
    run: { evaluate: "{ every: 100 }", checkpointEvery: "100", steps: "50" },
    code: "DISK_FULL",
    says: /Cannot write ".*checkpoints.step-\d+": /,
    leaves: ["metrics.jsonl", "run.json"],
  },
  "a run file where a job is written": {
    words: ["job", "run.ts", "--out", "."],
    code: "IO_FAILED",
    says: /not a file of a job/,
  },
  "a job of data that lies elsewhere": {
    run: { data: 'text("../*.txt")' },
    words: ["job", "run.ts", "--out", "job"],
    code: "DATA_PLACE",
    says: /"\.\.\/\*\.txt" is not below/,
  },
  "a folder that holds no job": {
    files: { "job/job.json": "{}" },
    words: ["train", "job"],
    code: "FILE_CORRUPT",
    says: /job\.json of the job is not as it was written/,
  },
  "fewer workers than the run waits for": {
    run: { microBatches: "2" },
    words: ["train", "run.ts", "--workers", "2", "--min-workers", "3"],
    code: "INVALID_OPTION",
    says: /A run of 2 workers cannot wait for 3/,
  },
  "roots for the data of a run file": {
    words: ["train", "run.ts", "--data-root", "."],
    code: "INVALID_OPTION",
    says: /--data-root is for jobs/,
  },
  "a data root that is no folder": {
    words: ["agent", "--data-root", "words.txt", "--token", "a token of tests"],
    code: "FILE_NOT_FOUND",
    says: /no folder "words\.txt"/,
  },
  "a source of data that is a function, for workers": {
    run: { data: '{ kind: "drawn", read: () => 1 }', microBatches: "2" },
    words: ["train", "run.ts", "--workers", "2"],
    code: "NOT_DATA",
    says: /"drawn" cannot be written down/,
  },
  "a missing model to inspect": {
    words: ["inspect", "nope.onnx"],
    code: "FILE_NOT_FOUND",
    says: /nope\.onnx/,
  },
  "a folder to sample from that holds no model": {
    words: ["sample", "."],
    code: "FILE_NOT_FOUND",
    says: /model\.onnx".*folder of a finished or stopped run/s,
  },
};

describe("bad input", { concurrency: 2 }, () => {
  for (const [name, { run, files, words, env, shell, code, says, leaves }] of Object.entries(
    CASES,
  )) {
    const skip =
      shell !== undefined && process.platform === "win32" ? "needs a POSIX shell" : false;
    test(name, { skip }, () =>
      withFolder({ ...runFiles(run), "table.csv": "x,label\n1,0\n", ...files }, async (cwd) => {
        const through = shell === undefined ? [] : ["sh", "-c", `${shell}; exec "$@"`, "sh"];
        const ended = await lockstep(words ?? ["train", "run.ts"], {
          cwd,
          through,
          env: env ?? {},
        });
        assert.equal(ended.status, 1, ended.stderr || ended.stdout);
        assert.ok(ended.stderr.startsWith("lockstep: "), ended.stderr);
        assert.ok(ended.stderr.includes(`[${code}]`), ended.stderr);
        assert.match(ended.stderr, says);
        assert.ok(!ended.stderr.includes("bug"), ended.stderr);
        const out = join(cwd, "runs/tiny");
        assert.deepEqual(existsSync(out) ? readdirSync(out).sort() : undefined, leaves);
        if (leaves?.includes("metrics.jsonl")) {
          const lines = readFileSync(join(out, "metrics.jsonl"), "utf8").split("\n");
          assert.equal(lines.pop(), "", "the last line is whole");
          for (const line of lines) JSON.parse(line);
        }
      }),
    );
  }
});
