/** `lockstep plan --to`: a plan as an annotated ONNX file, edited, and followed. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { devicesOf, type OnnxFile, readModel } from "../../src/onnx/index.ts";
import { modelTable } from "../../src/onnx/schema.ts";
import { encodeMessage } from "../../src/onnx/wire-write.ts";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { lockstep, runFiles } from "./support.ts";

const MODEL = "gpt({ layers: 2, width: 16, heads: 2, context: 16 })";
const files = runFiles({ model: MODEL, batch: "8", microBatches: "8", steps: "6" });
const PIPELINE = ["--workers", "2", "--parallel", "pipeline=2"];
const TENSOR = ["--workers", "2", "--parallel", "tensor=2"];

/** A run file like the given one, which follows this plan. */
function following(plan: string): string {
  const text = files["run.ts"] as string;
  return text
    .replace("const {", "const { withDevices,")
    .replace(MODEL, `withDevices(${MODEL}, "${plan}")`);
}

function stagesOf({ model }: OnnxFile): (number | undefined)[] {
  return model.graph.node.map(({ deviceConfigurations: [own] }) => own?.pipelineStage);
}

test("a plan of stages is written, edited and followed, to the bits of one process", () =>
  withFolder(files, async (cwd) => {
    const ok = async (words: readonly string[]) => {
      const { status, stdout, stderr } = await lockstep(words, { cwd });
      assert.equal(status, 0, stderr);
      return stdout;
    };
    const told = await ok(["plan", "run.ts", ...PIPELINE, "--to", "plan.onnx"]);
    assert.match(told, /Wrote plan\.onnx \("pipeline=2"\): \d+ of \d+ nodes are annotated\./);
    const plan = readModel(join(cwd, "plan.onnx"));
    const { model } = plan;
    assert.deepEqual(model.configuration, [
      { name: "pipeline=2", numDevices: 2, device: ["pipeline 0", "pipeline 1"] },
    ]);
    assert.deepEqual(new Set(stagesOf(plan)), new Set([0, 1, undefined]));
    // The file runs anywhere.
    await ort.InferenceSession.create(join(cwd, "plan.onnx"));

    // The second stage gets the norm and the head only.
    const last = model.graph.node.findIndex(({ output }) => output[0]?.startsWith("norm/"));
    for (const [at, { deviceConfigurations }] of model.graph.node.entries()) {
      for (const own of deviceConfigurations) own.pipelineStage = at < last ? 0 : 1;
    }
    writeFileSync(join(cwd, "edited.onnx"), encodeMessage(modelTable, model));
    writeFileSync(join(cwd, "edited.ts"), following("edited.onnx"));
    await ok(["plan", "edited.ts", ...PIPELINE, "--to", "again.onnx"]);
    assert.deepEqual(stagesOf(readModel(join(cwd, "again.onnx"))), stagesOf(plan));

    await ok(["train", "run.ts", "--threads", "1", "--out", "one"]);
    const words = ["train", "edited.ts", "--threads", "1", ...PIPELINE, "--out", "two"];
    assert.match(
      await ok(words),
      /sharing: .* Stages are those of edited\.onnx \("pipeline=2"\)\./,
    );
    const [one, two] = ["one", "two"].map((out) => reportOf(join(cwd, out)).weightsSha256);
    assert.equal(two, one);

    const other = await lockstep(
      ["train", "edited.ts", "--workers", "3", "--parallel", "pipeline=3"],
      { cwd },
    );
    assert.equal(other.status, 1);
    assert.match(
      other.stderr,
      /a pipeline of 3 stages does not fit edited\.onnx, which has pipeline stages for 2/,
    );

    await ok(["plan", "run.ts", ...PIPELINE, "--timetable", "zb-v", "--to", "v.onnx"]);
    const devices = new Map<number, Set<number>>();
    for (const { deviceConfigurations } of readModel(join(cwd, "v.onnx")).model.graph.node) {
      for (const { pipelineStage: stage = -1, shardingSpec } of deviceConfigurations) {
        const own = shardingSpec.flatMap(({ device }) => device);
        devices.set(stage, new Set([...(devices.get(stage) ?? []), ...own]));
      }
    }
    const wanted = [0, 1, 1, 0].map((device, stage) => [stage, new Set([device])] as const);
    assert.deepEqual(devices, new Map(wanted), "the first and the last stage lie on device 0");
  }));

test("a plan of divided matrices says which parts lie where, and gives itself when it is followed", () =>
  withFolder({ ...files, "same.ts": following("plan.onnx") }, async (cwd) => {
    for (const [run, to] of [
      ["run.ts", "plan.onnx"],
      ["same.ts", "again.onnx"],
    ] as const) {
      const { status, stderr } = await lockstep(["plan", run, ...TENSOR, "--to", to], { cwd });
      assert.equal(status, 0, stderr);
    }
    const [plan, again] = ["plan.onnx", "again.onnx"].map((name) => readModel(join(cwd, name)));
    assert.ok(plan !== undefined && again !== undefined);
    assert.deepEqual(again.model.graph.node, plan.model.graph.node);
    const [own] = devicesOf(plan.model, "plan.onnx").configurations;
    const node = own?.nodes.find(
      ({ node: { input } }) => input[1] === "blocks.0.feed_forward.up.weight",
    );
    assert.deepEqual(
      node?.tensors.find(({ tensor }) => tensor === node.node.input[1]),
      {
        tensor: "blocks.0.feed_forward.up.weight",
        dims: [{ axis: 1, factors: [{ size: 64, shards: 2 }] }],
        parts: [[0], [1]],
      },
    );
    // Queries, keys and values side by side are cut by heads.
    const heads = own?.nodes.find(
      ({ node: { input } }) => input[1] === "blocks.0.attention.qkv.weight",
    );
    const qkv = heads?.tensors.find(({ tensor }) => tensor === "blocks.0.attention.qkv.weight");
    assert.deepEqual(qkv?.dims, [
      {
        axis: 1,
        factors: [
          { size: 3, shards: 1 },
          { size: 16, shards: 2 },
        ],
      },
    ]);

    const whole = await lockstep(["plan", "run.ts", "--workers", "2", "--to", "none.onnx"], {
      cwd,
    });
    assert.equal(whole.status, 1);
    assert.match(whole.stderr, /no plan to write to none\.onnx: .*\[INVALID_OPTION\]/s);
    assert.ok(!existsSync(join(cwd, "none.onnx")));
    const json = await lockstep(["plan", "run.ts", ...TENSOR, "--to", "plan.onnx", "--json"], {
      cwd,
    });
    assert.ok("program" in (JSON.parse(json.stdout) as object));
    assert.match(json.stderr, /Wrote plan\.onnx/);
    assert.ok(readFileSync(join(cwd, "plan.onnx")).byteLength > 0);
  }));

test("a plan of experts says which worker has which, and is followed", () => {
  const sizes = "experts: { count: 4, topK: 2, capacity: 1.25 } })";
  const experts = MODEL.replace(" })", `, ${sizes}`);
  const own = Object.fromEntries(
    Object.entries({ ...files, "same.ts": following("plan.onnx") }).map(([name, text]) => [
      name,
      text.replace(MODEL, experts).replace("microBatches: 8", "microBatches: 2"),
    ]),
  );
  const words = ["--workers", "2", "--parallel", "expert=2"];
  return withFolder(own, async (cwd) => {
    const plan = async (run: string, to: string) => {
      const { status, stdout, stderr } = await lockstep(["plan", run, ...words, "--to", to], {
        cwd,
      });
      assert.equal(status, 0, stderr);
      return stdout;
    };
    await plan("run.ts", "plan.onnx");
    const { model } = readModel(join(cwd, "plan.onnx"));
    const [written] = devicesOf(model, "plan.onnx").configurations;
    const specs = written?.nodes.flatMap(({ tensors }) => tensors) ?? [];
    const up = specs.find(({ tensor }) => tensor === "blocks.0.feed_forward.experts.up.weight");
    assert.deepEqual(up?.dims, [{ axis: 0, factors: [{ size: 4, shards: 2 }] }]);
    const told = await plan("same.ts", "again.onnx");
    assert.match(told, /\d+ parameters of experts are held as plan\.onnx \("expert=2"\) says\./);
    const again = readModel(join(cwd, "again.onnx"));
    assert.deepEqual(again.model.graph.node, model.graph.node);
  });
});
