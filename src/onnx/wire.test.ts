import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { LockstepError } from "../errors.ts";
import type { AttributeValue, Graph, Node } from "../graph/index.ts";
import {
  byteLength,
  DTYPES,
  type DType,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../tensor/index.ts";
import { encodeModel, toRawModel } from "./encode.ts";
import { decodeModel, readModel } from "./read.ts";
import { type RawTensor, tensorTable } from "./schema.ts";
import { decodeTensor } from "./tensor.ts";
import { makeMessage } from "./wire.ts";
import { writeModel } from "./write.ts";

const dtypes = Object.keys(DTYPES) as DType[];

const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 });

const tensors: fc.Arbitrary<Tensor> = fc
  .tuple(fc.constantFrom(...dtypes), shapes)
  .chain(([dtype, shape]) =>
    fc
      .uint8Array({
        minLength: byteLength({ dtype, shape }),
        maxLength: byteLength({ dtype, shape }),
      })
      .map((bytes) => ({ dtype, shape, bytes })),
  );

const int64 = fc.integer({ min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER });
const float32 = fc.float({ noNaN: true });

const attributeValues: fc.Arbitrary<AttributeValue> = fc.oneof(
  int64.map((value) => ({ kind: "int" as const, value })),
  float32.map((value) => ({ kind: "float" as const, value })),
  fc.string({ unit: "grapheme" }).map((value) => ({ kind: "string" as const, value })),
  fc.array(int64).map((value) => ({ kind: "ints" as const, value })),
  fc.array(float32).map((value) => ({ kind: "floats" as const, value })),
  fc.array(fc.string()).map((value) => ({ kind: "strings" as const, value })),
  tensors.map((value) => ({ kind: "tensor" as const, value })),
);

/** Returns chains of made-up operators, because the codec knows none. */
const graphs: fc.Arbitrary<Graph> = fc
  .record({
    constants: fc.array(tensors, { maxLength: 4 }),
    attributes: fc.array(
      fc.dictionary(fc.string({ minLength: 1 }), attributeValues, { maxKeys: 3 }),
      {
        minLength: 1,
        maxLength: 5,
      },
    ),
    domain: fc.constantFrom("", "com.microsoft::", "lockstep::"),
  })
  .map(({ constants, attributes, domain }) => {
    const types = new Map([["x", { dtype: "float32" as DType, shape: [2, 3] }]]);
    const named = new Map(constants.map((tensor, i) => [`c${i}`, tensor]));
    for (const [name, { dtype, shape }] of named) types.set(name, { dtype, shape: [...shape] });
    const nodes = attributes.map((own, i): Node => {
      types.set(`y${i}`, { dtype: "float32", shape: [i] });
      const inputs = [i === 0 ? "x" : `y${i - 1}`, "", ...named.keys()];
      return { op: `${domain}Op${i}`, name: `n${i}`, inputs, outputs: [`y${i}`], attributes: own };
    });
    const outputs = [`y${nodes.length - 1}`];
    return { name: "random", inputs: ["x"], outputs, nodes, constants: named, types };
  });

test("an encoded message is decoded to the same bits", () => {
  fc.assert(
    fc.property(graphs, (graph) => {
      const { model, tensor } = decodeModel(encodeModel(graph, { valueTypes: true }));
      assert.deepEqual(model, { ...toRawModel(graph, { valueTypes: true }) });
      for (const raw of model.graph.initializer) {
        const { dtype, shape, bytes } = graph.constants.get(raw.name) as Tensor;
        const read = tensor(raw);
        assert.deepEqual({ dtype, shape: [...shape] }, { dtype: read.dtype, shape: read.shape });
        assert.ok(Buffer.from(bytes).equals(read.bytes));
      }
    }),
    { numRuns: 200 },
  );
});

/** Encodes varints of 64-bit two's complement. */
function varints(values: readonly bigint[]): Uint8Array {
  const bytes: number[] = [];
  for (const value of values) {
    let rest = BigInt.asUintN(64, value);
    for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
    bytes.push(Number(rest));
  }
  return Uint8Array.from(bytes);
}

test("typed data fields of every element type are read", () => {
  const cases: [DType, Partial<RawTensor>, number[]][] = [
    ["float32", { floatData: bytesOf(Float32Array.of(1.5, -2)) }, [1.5, -2]],
    ["float64", { doubleData: bytesOf(Float64Array.of(0.1, -2)) }, [0.1, -2]],
    ["int64", { int64Data: varints([-5n, 2n ** 40n]) }, [-5, 2 ** 40]],
    ["uint64", { uint64Data: varints([5n, 2n ** 52n]) }, [5, 2 ** 52]],
    ["uint32", { uint64Data: varints([5n, 2n ** 32n - 1n]) }, [5, 2 ** 32 - 1]],
    ["int32", { int32Data: varints([-5n, 2n ** 31n - 1n]) }, [-5, 2 ** 31 - 1]],
    ["int16", { int32Data: varints([-5n, 300n]) }, [-5, 300]],
    ["int8", { int32Data: varints([-5n, 127n]) }, [-5, 127]],
    ["uint16", { int32Data: varints([5n, 65535n]) }, [5, 65535]],
    ["uint8", { int32Data: varints([5n, 255n]) }, [5, 255]],
    ["bool", { int32Data: varints([0n, 1n]) }, [0, 1]],
    ["float16", { int32Data: varints([0x3c00n, 0xc000n]) }, [1, -2]],
    ["bfloat16", { int32Data: varints([0x3f80n, 0xc000n]) }, [1, -2]],
  ];
  assert.deepEqual(cases.map(([dtype]) => dtype).sort(), [...dtypes].sort());
  for (const [dtype, data, values] of cases) {
    const raw = makeMessage(tensorTable, { dims: [2], dataType: DTYPES[dtype].onnx, ...data });
    assert.deepEqual(toNumbers(decodeTensor(raw, "tensor")), values, dtype);
    const short = { ...raw, dims: [3] };
    assert.throws(() => decodeTensor(short, "tensor"), { code: "ONNX_PARSE" }, dtype);
  }
});

function bytesOf(array: Float32Array | Float64Array): Uint8Array {
  return new Uint8Array(array.buffer);
}

test("numbers that are written one by one are read like packed ones", () => {
  // TensorProto: dims 3, data_type 1 (float32), float_data as three single fields (tag 0x25).
  const single = [1, 2, 3].flatMap((v) => [0x25, ...bytesOf(Float32Array.of(v))]);
  const graph = [0x2a, 4 + single.length, 8, 3, 16, 1, ...single];
  const opset = [0x42, 2, 16, 17];
  const model = Uint8Array.from([...opset, 0x3a, graph.length, ...graph]);
  const file = decodeModel(model);
  const [raw] = file.model.graph.initializer;
  assert.deepEqual(toNumbers(file.tensor(raw as RawTensor)), [1, 2, 3]);
});

test("a damaged file is read, or refused with a code", () => {
  const folder = path.join(import.meta.dirname, "../../../test/onnx/fixtures");
  const files = fs.readdirSync(folder).filter((name) => name.endsWith(".onnx"));
  assert.ok(files.length > 0);
  const originals = files.map((name) => fs.readFileSync(path.join(folder, name)));
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  let refused = 0;
  for (let run = 0; run < 10_000; run++) {
    const original = originals[run % originals.length] as Buffer;
    const bytes = Uint8Array.from(original.subarray(0, run % 7 ? original.length : random(5000)));
    for (let flips = random(8); flips >= 0; flips--) {
      bytes[random(Math.min(bytes.length, run % 2 ? 4000 : 1e9))] = random(256);
    }
    try {
      const file = decodeModel(bytes);
      for (const raw of file.model.graph.initializer) file.tensor(raw);
    } catch (error) {
      assert.ok(error instanceof LockstepError, `run ${run}: ${String(error)}`);
      assert.match(error.code, /^ONNX_(PARSE|UNSUPPORTED)$/);
      refused++;
    }
  }
  assert.ok(refused > 500, `${refused} refused`);
});

test("random bytes, deep nesting and huge claims end quickly", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      try {
        decodeModel(bytes);
      } catch (error) {
        assert.ok(error instanceof LockstepError && error.code === "ONNX_PARSE", String(error));
      }
    }),
    { numRuns: 2000 },
  );
  // model.graph.node.attribute.g.node.attribute.g …
  let nested = new Uint8Array(0);
  for (let depth = 0; depth < 3000; depth++) nested = wrap([6, 5, 1][depth % 3] as number, nested);
  assert.throws(() => decodeModel(wrap(7, nested)), { code: "ONNX_PARSE" });
  const huge = makeMessage(tensorTable, { dims: [2 ** 40, 2 ** 40], dataType: 1 });
  assert.throws(() => decodeTensor(huge, "tensor"), { code: "ONNX_PARSE" });
  const many = makeMessage(tensorTable, { dims: [2 ** 33], dataType: 7 });
  assert.throws(() => decodeTensor(many, "tensor"), { code: "ONNX_PARSE" });
});

function wrap(field: number, inner: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = varints([BigInt(field * 8 + 2), BigInt(inner.length)]);
  return Uint8Array.from([...head, ...inner]);
}

test("external data is written beside the model, read by offset and length, and kept inside the folder", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "lockstep-onnx-"));
  try {
    const file = path.join(folder, "model.onnx");
    const values = (count: number, from: number) =>
      tensorFrom(
        "float32",
        [count],
        Array.from({ length: count }, (_, i) => from + i),
      );
    const constants = new Map([
      ["a", values(1000, 0)],
      ["b", values(300, 5000)],
      ["small", values(2, 7)],
    ]);
    const types = new Map([...constants, ["x", values(1, 0)] as const]);
    await writeModel(
      file,
      { name: "weights", inputs: ["x"], outputs: ["x"], nodes: [], constants, types },
      { externalData: "always" },
    );
    assert.deepEqual(fs.readdirSync(folder).sort(), ["model.onnx", "model.onnx.data"]);
    assert.ok(fs.statSync(file).size < 600);
    const read = readModel(file);
    for (const raw of read.model.graph.initializer) {
      assert.deepEqual(toNumbers(read.tensor(raw)), toNumbers(constants.get(raw.name) as Tensor));
    }
    const [raw] = read.model.graph.initializer as [RawTensor];
    for (const [location, code] of [
      ["../secret", "ONNX_PARSE"],
      ["/etc/passwd", "ONNX_PARSE"],
      ["absent.bin", "FILE_NOT_FOUND"],
    ] as const) {
      const bad = { ...raw, externalData: [{ key: "location", value: location }] };
      assert.throws(() => read.tensor(bad), { code }, location);
    }
    fs.writeFileSync(path.join(folder, "short.data"), "short");
    const short = { ...raw, externalData: [{ key: "location", value: "short.data" }] };
    assert.throws(() => read.tensor(short), { code: "FILE_CORRUPT" });
    await assert.rejects(writeModel(path.join(file, "model.onnx"), emptyGraph()), {
      code: "IO_FAILED",
    });
    assert.throws(() => readModel(path.join(folder, "absent.onnx")), { code: "FILE_NOT_FOUND" });
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

function emptyGraph(): Graph {
  return { name: "", inputs: [], outputs: [], nodes: [], constants: new Map(), types: new Map() };
}
