/** Annotations survive what the import does to a graph: weights under other names, other batches. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { decodeModel } from "../onnx/read.ts";
import { modelTable } from "../onnx/schema.ts";
import { encodeMessage } from "../onnx/wire-write.ts";
import { onnx } from "./define.ts";
import { mse } from "./losses.ts";
import type { OnnxOptions } from "./options.ts";

const fixtures = join(import.meta.dirname, "../../../test/onnx");

/**
 * Cuts all matrices that one node multiplies by in columns, and puts each node into a stage; returns
 * the model, and what is said.
 */
async function annotated(name: string, options: Partial<OnnxOptions>) {
  const { model } = decodeModel(readFileSync(join(fixtures, `${name}.onnx`)));
  const matrices = new Map(model.graph.initializer.map((raw) => [raw.name, raw.dims]));
  const cut: string[] = [];
  for (const [at, node] of model.graph.node.entries()) {
    const [, weight = ""] = node.input;
    const [, columns = 1, ...more] = matrices.get(weight) ?? [];
    const isCut = columns % 2 === 0 && more.length === 0 && node.opType === "MatMul";
    if (isCut) cut.push(weight);
    const spec = {
      tensorName: weight,
      device: [0, 1],
      deviceGroups: [],
      shardedDim: [
        { axis: -1, simpleSharding: [{ dimValue: undefined, dimParam: "", numShards: 2 }] },
      ],
    };
    node.deviceConfigurations.push({
      configurationId: "two",
      shardingSpec: isCut ? [spec] : [],
      pipelineStage: 2 * at < model.graph.node.length ? 0 : 1,
    });
  }
  model.configuration.push({ name: "two", numDevices: 2, device: [] });
  return withFolder({}, (folder) => {
    const file = join(folder, "m.onnx");
    writeFileSync(file, encodeMessage(modelTable, model));
    const loss = mse({ prediction: "output", target: "target" });
    const built = onnx(file, { loss, ...options }).build({ batch: 2, mode: "train" });
    return Promise.resolve({ built, cut });
  });
}

const CASES: readonly (readonly [string, Partial<OnnxOptions>])[] = [
  ["fixtures/encoder-17", { dims: { length: 6 } }],
  ["fixtures/torch-encoder-16", { dims: { length: 6 } }],
  // A file of one batch size, which is not 2.
  ["batch/masked-4", {}],
];

for (const [name, options] of CASES) {
  test(`${name}: parameters and nodes are found`, async () => {
    const { built, cut } = await annotated(name, options);
    const [two] = built.devices?.configurations ?? [];
    assert.ok(two !== undefined && cut.length > 0);
    const names = new Set(built.parameters.map((own) => own.name));
    const found = Object.keys(two.parameters);
    assert.equal(found.length, new Set(cut).size, `${cut.join()} as ${found.join()}`);
    assert.ok(
      found.every((own) => names.has(own)),
      found.join(),
    );
    const made = new Set(built.graph.nodes.flatMap(({ outputs }) => outputs));
    const here = Object.keys(two.stageOf).filter((value) => made.has(value));
    assert.ok(here.length > built.graph.nodes.length / 2, `${here.length} values have a stage`);
    assert.deepEqual([...new Set(Object.values(two.stageOf))], [0, 1]);
  });
}
