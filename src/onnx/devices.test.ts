/** Multi-device annotations: written and read to the same, checked, and what parts of dims they mean. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LockstepError } from "../errors.ts";
import { cutOf, type DimCut, specOf, type TensorOnDevices } from "./device-parts.ts";
import type { RawNodeDevices, RawShardingSpec } from "./device-schema.ts";
import { devicesOf } from "./devices.ts";
import { encodeModel } from "./encode.ts";
import { decodeModel } from "./read.ts";

const matrix = { dtype: "float32", shape: [6, 4] } as const;

/** A model of one Relu, on four devices, about which this is said. */
function modelOf(said: Partial<RawNodeDevices>, configuration = {}) {
  const graph = {
    name: "relu",
    inputs: ["x"],
    outputs: ["y"],
    constants: new Map(),
    types: new Map([
      ["x", matrix],
      ["y", matrix],
    ]),
    nodes: [{ op: "Relu", name: "relu", inputs: ["x"], outputs: ["y"], attributes: {} }],
  };
  const own = { configurationId: "four", shardingSpec: [], pipelineStage: undefined, ...said };
  const bytes = encodeModel(graph, {
    devices: {
      configurations: [{ name: "four", numDevices: 4, device: [], ...configuration }],
      of: () => [own],
    },
  });
  return decodeModel(bytes).model;
}

function spec(fields: Partial<RawShardingSpec>): RawShardingSpec {
  return { tensorName: "x", device: [0, 1], deviceGroups: [], shardedDim: [], ...fields };
}

const along = (
  axis: number | undefined,
  ...factors: (readonly [number | undefined, number])[]
) => ({
  axis,
  simpleSharding: factors.map(([dimValue, numShards]) => ({ dimValue, numShards, dimParam: "" })),
});

test("what is written of devices is read, zeros too", () => {
  const said: RawNodeDevices = {
    configurationId: "four",
    pipelineStage: 0,
    shardingSpec: [
      spec({
        device: [-1, 0],
        deviceGroups: [{ key: -1, value: [0, 3] }],
        shardedDim: [along(0, [2, 1], [3, 1]), along(-1, [undefined, 2])],
      }),
    ],
  };
  const model = modelOf(said, { device: ["a", "b", "c", "d"] });
  assert.deepEqual(model.graph.node[0]?.deviceConfigurations, [said]);
  assert.deepEqual(model.configuration, [
    { name: "four", numDevices: 4, device: ["a", "b", "c", "d"] },
  ]);
});

test("a negative axis, a size that is left out and groups of devices are understood", () => {
  const [four] = devicesOf(
    modelOf({
      pipelineStage: 2,
      shardingSpec: [
        spec({
          device: [-5, 1],
          deviceGroups: [{ key: -5, value: [0, 2] }],
          shardedDim: [along(-1, [undefined, 2])],
        }),
        spec({ tensorName: "y", device: [3, 1] }),
      ],
    }),
    "file",
  ).configurations;
  const [on] = four?.nodes ?? [];
  assert.equal(on?.stage, 2);
  assert.deepEqual(on.tensors, [
    { tensor: "x", dims: [{ axis: 1, factors: [{ size: 4, shards: 2 }] }], parts: [[0, 2], [1]] },
    { tensor: "y", dims: [], parts: [[3, 1]] },
  ]);
  const [x, y] = on.tensors.map(cutOf);
  assert.deepEqual(x, { dim: 1, parts: 2 });
  assert.equal(y, "whole");
});

const x = (fields: Partial<RawShardingSpec>) => ({ shardingSpec: [spec(fields)] });
const WRONG: readonly (readonly [string, RegExp, Partial<RawNodeDevices>, object?])[] = [
  ["an unknown configuration", /names the configuration "five"/, { configurationId: "five" }],
  ["a stage below 0", /pipeline stage -1/, { pipelineStage: -1 }],
  ["a tensor of another node", /shards "z"/, x({ tensorName: "z" })],
  ["a tensor twice", /shards "x" twice/, { shardingSpec: [spec({}), spec({})] }],
  ["a device that is not there", /names the device 4/, x({ device: [4] })],
  ["a key without a group", /names the device -1/, x({ device: [-1] })],
  [
    "a group with a device that is not there",
    /names the device 9/,
    x({ device: [-1], deviceGroups: [{ key: -1, value: [0, 9] }] }),
  ],
  [
    "an empty group",
    /group -1 is empty/,
    x({ device: [-1], deviceGroups: [{ key: -1, value: [] }] }),
  ],
  ["no device", /names no device/, x({ device: [] })],
  [
    "an axis beyond the last",
    /axis 2 of a tensor of 2 dims/,
    x({ shardedDim: [along(2, [undefined, 2])] }),
  ],
  [
    "an axis before the first",
    /axis -3 of a tensor of 2 dims/,
    x({ shardedDim: [along(-3, [undefined, 2])] }),
  ],
  ["no axis", /has no axis/, x({ shardedDim: [along(undefined, [6, 2])] })],
  [
    "an axis twice",
    /one axis twice/,
    x({ device: [0, 1, 2, 3], shardedDim: [along(1, [4, 2]), along(-1, [4, 2])] }),
  ],
  ["no shards", /cut into 0 shards/, x({ shardedDim: [along(0, [6, 0])] })],
  [
    "another number of devices",
    /has 2 shards, but names 3 devices/,
    x({ device: [0, 1, 2], shardedDim: [along(0, [6, 2])] }),
  ],
  [
    "another size",
    /has 6 elements, but its sharding counts 8/,
    x({ shardedDim: [along(0, [8, 2])] }),
  ],
  [
    "a dim that does not divide",
    /6 elements along axis 0 do not divide evenly into 4/,
    x({ device: [0, 1, 2, 3], shardedDim: [along(0, [undefined, 4])] }),
  ],
  [
    "a part that does not divide",
    /3 elements along axis 0 do not divide/,
    x({ shardedDim: [along(0, [2, 1], [3, 2])] }),
  ],
  ["no devices", /"four" has 0 devices/, {}, { numDevices: 0 }],
  ["names for other devices", /4 devices and 1 names/, {}, { device: ["a"] }],
];

for (const [what, text, said, configuration] of WRONG) {
  test(`refused: ${what}`, () => {
    const isOpen = what.includes("divide");
    assert.throws(
      () => devicesOf(modelOf(said, configuration), "m.onnx"),
      (error) => {
        assert.ok(error instanceof LockstepError, String(error));
        assert.match(error.message, text);
        assert.match(error.message, /^m\.onnx: its multi-device annotations are wrong/);
        assert.equal(error.code, isOpen ? "ONNX_UNSUPPORTED" : "ONNX_PARSE");
        return true;
      },
    );
  });
}

/** By element of a dim: the part that has it, in plain words of the standard. */
function owners({ dims, parts }: TensorOnDevices): number[] {
  const [{ factors } = { factors: [] }] = dims;
  const size = factors.reduce((all, own) => all * (own.size ?? 1), 1);
  return Array.from({ length: size }, (_, element) => {
    let [rest, below, part, shardsBelow] = [element, 1, 0, 1];
    for (const { size: own = 1, shards } of factors.toReversed()) {
      part += Math.floor((rest % own) / (own / shards)) * shardsBelow;
      rest = Math.floor(rest / own);
      below *= own;
      shardsBelow *= shards;
    }
    return parts[part]?.[0] as number;
  });
}

/** By element: the part that has it, if each section is cut evenly. */
function ownersInSections({ parts }: DimCut, sections: readonly number[]): number[] {
  return sections.flatMap((size) =>
    Array.from({ length: size }, (_, at) => Math.floor(at / (size / parts))),
  );
}

test("sections are written as shards of the same elements, and read back", () => {
  const cuts = fc.record({
    parts: fc.integer({ min: 2, max: 4 }),
    pieces: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
  });
  fc.assert(
    fc.property(cuts, ({ parts, pieces }) => {
      const sections = pieces.map((size) => size * parts);
      const size = sections.reduce((sum, own) => sum + own, 0);
      const cut = { dim: 1, parts, ...(sections.length > 1 && { sections }) };
      const devices = Array.from({ length: parts }, (_, device) => device);
      const raw = specOf("x", [3, size], cut, devices);
      assert.ok(raw !== undefined);
      const read = {
        tensor: "x",
        dims: raw.shardedDim.map(({ axis = 0, simpleSharding }) => ({
          axis,
          factors: simpleSharding.map(({ dimValue, numShards = 1 }) => {
            return { size: dimValue, shards: numShards };
          }),
        })),
        parts: raw.device.map((device) => [device]),
      };
      assert.deepEqual(owners(read), ownersInSections(cut, sections));
      assert.deepEqual(cutOf(read), cut);
    }),
    { numRuns: 500 },
  );
});

test("shards of dims in one are the parts that the standard means", () => {
  const factor = fc.record({
    shards: fc.integer({ min: 1, max: 3 }),
    each: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(fc.array(factor, { minLength: 1, maxLength: 3 }), (drawn) => {
      const factors = drawn.map(({ shards, each }) => ({ size: shards * each, shards }));
      const count = factors.reduce((product, { shards }) => product * shards, 1);
      const parts = Array.from({ length: count }, (_, device) => [device]);
      const on = { tensor: "x", dims: [{ axis: 0, factors }], parts };
      const cut = cutOf(on);
      if (count === 1) assert.equal(cut, "whole");
      if (cut === undefined || cut === "whole") return;
      const { sections = [owners(on).length] } = cut;
      assert.deepEqual(ownersInSections(cut, sections), owners(on));
    }),
    { numRuns: 500 },
  );
  const twice = [
    { size: 2, shards: 2 },
    { size: 4, shards: 2 },
  ];
  const parts = [[0], [1], [2], [3]];
  const four = { tensor: "x", dims: [{ axis: 0, factors: twice }], parts };
  assert.deepEqual(cutOf(four), { dim: 0, parts: 4 });
});

test("what is not one dim in even sections is not taken for it", () => {
  const of = (dims: TensorOnDevices["dims"], devices: readonly number[]) =>
    cutOf({ tensor: "x", dims, parts: devices.map((device) => [device]) });
  const halves = { size: 4, shards: 2 };
  const two = [
    { axis: 0, factors: [halves] },
    { axis: 1, factors: [halves] },
  ];
  assert.equal(of(two, [0, 1, 2, 3]), undefined);
  const quarters = [{ axis: 0, factors: [{ size: 8, shards: 4 }] }];
  assert.equal(of(quarters, [0, 0, 0, 1]), undefined, "three quarters and one");
  assert.equal(of(quarters, [1, 0, 1, 0]), undefined, "the second device is first");
  assert.deepEqual(of(quarters, [0, 1, 0, 1]), { dim: 0, parts: 2, sections: [4, 4] });
  assert.equal(of(quarters, [2, 2, 2, 2]), "whole");
  const open = [{ axis: 0, factors: [{ size: undefined, shards: 2 }] }];
  assert.equal(of(open, [0, 1]), undefined);
});
