import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import type { Graph } from "../../graph/index.ts";
import { encodeModel } from "../../onnx/index.ts";
import { newBuilder } from "../../ops/index.ts";
import { tensorFrom, toNumbers } from "../../tensor/index.ts";
import { evaluate } from "../evaluate.ts";
import { SessionCache } from "./cache.ts";
import { lowerGraph } from "./lower.ts";
import { createOrtEngine } from "./ort-engine.ts";
import type { Session } from "./session.ts";

const hasCode = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

function chain(prefix: string, size = 256): Graph {
  const builder = newBuilder(`${prefix}: a chain`);
  let value = builder.input(`${prefix}.x`, { dtype: "float32", shape: [size, size] });
  for (let i = 0; i < 3; i++) {
    value = builder.within(`${prefix}.${i}`, () => builder.one("MatMul", [value, value]));
  }
  return builder.build([value]);
}

async function inTemporaryFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "lockstep-"));
  try {
    await body(folder);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

test("the engine tells its version and its threads", async () => {
  const engine = createOrtEngine({ threads: 3 });
  assert.match(engine.version, /^onnxruntime \d+\.\d+\.\d+/);
  assert.equal(engine.threads, 3);
  await engine.close();
  for (const threads of [0, -1, 1.5, Number.NaN]) {
    assert.throws(() => createOrtEngine({ threads }), hasCode("INVALID_OPTION"));
  }
});

test("a library that is missing or foreign is an error", async () => {
  const missing = { library: "/nowhere/libonnxruntime.so" };
  assert.throws(() => createOrtEngine(missing), hasCode("ENGINE_LIBRARY"));
  await inTemporaryFolder((folder) => {
    const file = path.join(folder, "libonnxruntime.so");
    fs.writeFileSync(file, "not a library");
    assert.throws(() => createOrtEngine({ library: file }), hasCode("ENGINE_LIBRARY"));
    return Promise.resolve();
  });
  if (process.platform === "linux" && process.report !== undefined) {
    const libraries = (process.report.getReport() as { sharedObjects: string[] }).sharedObjects;
    const other = libraries.find((file) => file.includes("libm.so"));
    assert.ok(other);
    assert.throws(() => createOrtEngine({ library: other }), /is not ONNX Runtime/);
  }
});

test("graphs of equal structure share a session until the last one closes", async () => {
  const cache = new SessionCache();
  let made = 0;
  let released = 0;
  const session = { release: () => released++ } as unknown as Session;
  const create = () => Promise.resolve(session).finally(() => made++);
  const shares = await Promise.all([cache.take("k", create), cache.take("k", create)]);
  assert.equal(made, 1);
  shares[0].retain();
  shares[0].release();
  shares[1].release();
  assert.deepEqual([released, cache.size], [0, 1]);
  shares[0].release();
  assert.deepEqual([released, cache.size], [1, 0]);
  await assert.rejects(
    cache.take("bad", () => Promise.reject(new Error("no"))),
    /no/,
  );
  assert.equal(cache.size, 0);
});

test("every thread count computes, beside a pool of another size", async () => {
  const pool = createOrtEngine({ threads: 2 });
  const other = createOrtEngine({ threads: 3, spin: false });
  const graph = chain("layer", 8);
  const x = tensorFrom("float32", [8, 8], new Array(64).fill(0.5));
  for (const [engine, threads] of [
    [pool, 1],
    [pool, 2],
    [pool, 3],
    [other, 3],
  ] as const) {
    const results = await evaluate(engine, graph, { "layer.x": x }, { threads });
    const [result] = Object.values(results);
    assert.deepEqual(result && new Set(toNumbers(result)), new Set([8 ** 7 * 0.5 ** 8]));
  }
  await pool.close();
  await other.close();
});

test("dumps what it compiles under readable names", async () => {
  await inTemporaryFolder(async (folder) => {
    const dump = path.join(folder, "graphs");
    const engine = createOrtEngine({ threads: 1, dump });
    const executables = [await engine.compile(chain("first")), await engine.compile(chain("b"))];
    const files = fs.readdirSync(dump).sort();
    assert.deepEqual(
      files.map((file) => file.replace(/-[0-9a-f]{8}\.onnx$/, "")),
      ["b_a_chain", "first_a_chain"],
    );
    assert.ok(fs.readFileSync(path.join(dump, files[1] ?? "")).includes("first.0/MatMul_1"));
    for (const executable of executables) executable.close();
    await engine.close();
  });
});

test("writes a profile when a session ends", async () => {
  await inTemporaryFolder(async (folder) => {
    const engine = createOrtEngine({ threads: 1, profile: folder });
    const x = tensorFrom("float32", [8, 8], new Array(64).fill(1));
    await evaluate(engine, chain("p", 8), { "p.x": x });
    await engine.close();
    const [file = ""] = fs.readdirSync(folder);
    const events = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8")) as object[];
    assert.ok(JSON.stringify(events).includes("p.1/MatMul_1"));
  });
});

test("sessions share one arena, and report how much of it they needed", async () => {
  const engine = createOrtEngine({ threads: 1 });
  assert.equal(engine.arena(), undefined);
  const tensorBytes = 256 * 256 * 4;
  const graphs = [chain("one"), chain("two", 128)];
  const kept = await Promise.all(graphs.map((graph) => engine.compile(graph)));
  const before = engine.arena()?.peak ?? 0;
  for (const graph of graphs) {
    const [name = ""] = graph.inputs;
    const shape = graph.types.get(name)?.shape ?? [];
    const count = (shape[0] ?? 0) ** 2;
    const x = tensorFrom("float32", shape, new Array<number>(count).fill(0));
    await evaluate(engine, graph, { [name]: x });
  }
  const { peak = 0, inUse } = engine.arena() ?? {};
  assert.equal(inUse, 0);
  assert.ok(peak - before >= tensorBytes && peak - before <= 3 * tensorBytes, `${before} ${peak}`);
  for (const executable of kept) executable.close();
  await engine.close();
});

test("large constants are used in place, even at odd addresses", async () => {
  const engine = createOrtEngine({ threads: 2, maxEmbeddedBytes: 0 });
  const builder = newBuilder("frozen");
  const [rows, width] = [2 ** 16, 4];
  let sum = builder.input("x", { dtype: "float32", shape: [1] });
  for (const offset of [0, 2]) {
    const bytes = new Uint8Array(offset + rows * width * 4).subarray(offset);
    bytes.set(new Uint8Array(new Float32Array(rows * width).fill(3 + offset).buffer));
    const shape = [rows, width];
    const table = builder.namedConstant(`table${offset}`, { dtype: "float32", shape, bytes });
    sum = builder.one("Add", [sum, builder.one("Gather", [table, builder.ints([rows - 1])])]);
  }
  const graph = builder.build([sum]);
  const lowered = lowerGraph(graph, 0);
  assert.equal(lowered.lifted.length, 2);
  assert.ok(encodeModel(lowered.graph).byteLength < 2000);
  const executable = await engine.compile(graph);
  assert.deepEqual(executable.graph.inputs, ["x"]);
  for (let round = 0; round < 3; round++) {
    const results = await evaluate(engine, graph, { x: tensorFrom("float32", [1], [1]) });
    const [result] = Object.values(results);
    assert.deepEqual(result && toNumbers(result), [9, 9, 9, 9]);
  }
  executable.close();
  await engine.close();
});

test("a failed execution names the graph, and the next one is right", async () => {
  const engine = createOrtEngine({ threads: 2 });
  const builder = newBuilder("lookup");
  const table = builder.input("table", { dtype: "float32", shape: [4, 2] });
  const ids = builder.input("ids", { dtype: "int32", shape: [1] });
  const graph = builder.build([builder.one("Gather", [table, ids])]);
  const look = async (id: number) => {
    const [row] = Object.values(
      await evaluate(engine, graph, {
        table: tensorFrom("float32", [4, 2], [0, 1, 2, 3, 4, 5, 6, 7]),
        ids: tensorFrom("int32", [1], [id]),
      }),
    );
    return row && toNumbers(row);
  };
  for (let round = 0; round < 20; round++) {
    await assert.rejects(look(9), (error: Error) => {
      assert.ok(hasCode("ENGINE_FAILED")(error));
      assert.match(error.message, /running graph "lookup".*out of data bounds/s);
      return true;
    });
    assert.deepEqual(await look(3), [6, 7]);
  }
  await engine.close();
});
