/**
 * A program is data: what is written and read back gives the same bits, and what does not fit
 * together is refused.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../engine/index.ts";
import { initialize, instantiate } from "../execute/index.ts";
import { add, div, mul, reduceMean, reduceSum, square } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { createMesh, evenTopology } from "../mesh/index.ts";
import { convnet, defineModel, gpt, linear, type ModelDefinition } from "../nn/index.ts";
import { adamw, rulesOf } from "../optimizer/index.ts";
import { buildStep } from "../plan/index.ts";
import { elementCount, toNumbers } from "../tensor/index.ts";
import { type ProgramJson, programFromJson, programToJson } from "./json.ts";
import { lower } from "./lower.ts";
import { summaryOf } from "./norm.ts";
import type { StepProgram } from "./step-program.ts";
import { scalarsOf } from "./update.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const optimizer = adamw({ learningRate: 1e-2 });

function programOf(definition: ModelDefinition) {
  const model = definition.build({ batch: 2, mode: "train" });
  const step = buildStep({ model, optimizer, microBatches: 4, clip: 1 });
  const ground = { mesh: createMesh({}), topology: evenTopology(1, 1) };
  const evaluation = definition.build({ batch: 2, mode: "eval" });
  return {
    model,
    program: lower(step, { ground, rank: 0, optimizer, evaluation, evaluationSamples: 5 }),
  };
}

/** Two steps; all parameters and slots afterwards, and the losses. */
async function outcome(
  { model }: ReturnType<typeof programOf>,
  program: StepProgram,
): Promise<readonly (readonly number[])[]> {
  const instance = await instantiate(engine, program);
  try {
    const items = model.parameters.map(({ name, type, initializer }) => {
      const ref = program.parameters.get(name);
      assert.ok(ref !== undefined);
      return { name, type, initializer, into: instance.tensor(ref) };
    });
    await initialize(engine, items, 7);
    const losses: number[] = [];
    for (const step of [1, 2]) {
      for (const [field, ref] of program.batch) {
        const tensor = instance.hostTensor(ref);
        const bytes = new Int32Array(
          tensor.bytes.buffer,
          tensor.bytes.byteOffset,
          elementCount(ref.type.shape),
        );
        const isFloat = ref.type.dtype === "float32";
        for (const at of bytes.keys())
          bytes[at] = isFloat ? 0x3f000000 + at * 4096 : (at * 5 + step + field.length) % 7;
      }
      const side = program.sides[(step - 1) as 0 | 1];
      for (const stage of [...side.totals, ...side.compute]) await instance.run(stage);
      const { loss, gradientScale } = summaryOf(toNumbers(instance.hostTensor(program.summary)));
      losses.push(loss);
      for (const [place, value] of scalarsOf(
        rulesOf(optimizer),
        program.scalars,
        { step, gradientScale },
        1,
      )) {
        instance.hostTensor(place).bytes.set(value.bytes);
      }
      for (const stage of side.commit) await instance.run(stage);
    }
    const kept = [
      ...program.parameters.values(),
      ...program.slots.values(),
      ...program.sides[0].states.values(),
    ];
    const tensors = await Promise.all(
      kept.map((ref) => instance.device.download(instance.tensor(ref))),
    );
    return [losses, ...tensors.map(toNumbers)];
  } finally {
    instance.close();
  }
}

/** Its loss has two denominators: whether anything counts is found before the gradients. */
const twoCounts = defineModel("two counts", (m) => {
  const x = m.input("x", [m.batch, 3]);
  const rows = reduceMean(square(linear(m.child("head"), x, { outputs: 2 })), {
    axes: [1],
    keepdims: false,
  });
  const [first, second] = ["a", "b"].map((name) => {
    const mask = m.input(name, [m.batch]);
    const own = reduceSum(mul(rows, mask), { keepdims: false });
    return div(own, reduceSum(mask, { keepdims: false }));
  }) as [Value, Value];
  return { loss: add(first, second) };
});

const MODELS: readonly ModelDefinition[] = [
  gpt({ layers: 1, width: 16, heads: 2, context: 8, vocabulary: 7 }),
  convnet({ image: [1, 8, 8], classes: 7, channels: [4] }),
  twoCounts,
];

for (const definition of MODELS) {
  test(`${definition.name}: a program that is read back gives the same bits`, async () => {
    const planned = programOf(definition);
    const text = JSON.stringify(programToJson(planned.program));
    const read = programFromJson(JSON.parse(text) as ProgramJson);
    assert.equal(JSON.stringify(programToJson(read)), text);
    assert.equal(read.counted !== undefined, definition === twoCounts);
    const [expected, found] = [
      await outcome(planned, planned.program),
      await outcome(planned, read),
    ];
    assert.ok(expected[0]?.every(Number.isFinite));
    assert.deepEqual(found, expected);
  });
}

test("a program that does not fit together is refused, whatever is wrong with it", () => {
  const text = JSON.stringify(programToJson(programOf(MODELS[0] as ModelDefinition).program));
  /** Puts a value at a path; nothing there where the value is undefined. */
  const damaged = (path: string, value: unknown) => () => {
    const json: unknown = JSON.parse(text);
    const keys = path.split("/");
    const last = keys.pop() as string;
    const parent = keys.reduce<unknown>(
      (at, key) => Reflect.get(at as object, key),
      json,
    ) as object;
    if (value === undefined) Reflect.deleteProperty(parent, last);
    else Reflect.set(parent, last, value);
    return programFromJson(json as ProgramJson);
  };
  const damage: readonly (readonly [string, unknown, RegExp])[] = [
    ["format", "lockstep-program-0", /this version reads/],
    ["buffers/parameters/byteLength", 64, /puts \d+ bytes at \d+ of "parameters"/],
    ["buffers/gradients", undefined, /names the buffer "gradients"/],
    ["buffers/parameters/byteLength", -1, /has -1 bytes/],
    ["buffers/parameters/space", "dsk", /"parameters" lies in "dsk", which is no space/],
    ["graphs/gradient", undefined, /which is no graph/],
    ["sides/0/gradients/0/inputs/ids/byteOffset", -4, /at -4 of/],
    ["sides/0/gradients/0/inputs/ids/type/shape", [1], /binds .* to "ids"/],
    ["sides/1/gradients/0/inputs/ids", undefined, /gives no place to "ids"/],
    ["summary/byteOffset", 1e9, /of "summary"/],
    [
      "graphs/gradient/graph/nodes/0",
      { op: "Identity", name: "odd", inputs: ["nothing"], outputs: [], attributes: {} },
      /nothing before it defines/,
    ],
    ["graphs/gradient/graph/types/ids", ["float33", [1]], /is no tensor type/],
  ];
  for (const [path, value, expected] of damage) {
    assert.throws(damaged(path, value), expected, path);
  }
});
