/**
 * The binding is the one place that can be unsafe: it must answer anything with errors, and leak no
 * memory.
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { createOrtEngine, type HostTensor } from "../src/engine/index.ts";
import { findOrtLibrary } from "../src/engine/ort-native/library.ts";
import { acquireRuntime } from "../src/engine/ort-native/runtime.ts";
import { compileModel } from "../src/engine/ort-native/session.ts";
import { LockstepError } from "../src/errors.ts";
import type { Graph } from "../src/graph/index.ts";
import { encodeModel } from "../src/onnx/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { DTYPES, type DType, tensorFrom } from "../src/tensor/index.ts";

const SETTINGS = { threads: 1, spin: false, profile: undefined };

function model(): Graph {
  const builder = newBuilder("victim");
  const x = builder.input("x", { dtype: "float32", shape: [4, 4] });
  const w = builder.namedConstant("w", tensorFrom("float32", [4, 4], new Float32Array(16)));
  return builder.build([builder.one("MatMul", [builder.one("Add", [x, w]), w])]);
}

test("garbage and damaged models are errors", async () => {
  const runtime = acquireRuntime(findOrtLibrary(undefined), 1, false);
  const good = encodeModel(model());
  const damaged = fc
    .array(fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 8,
    })
    .map((changes) => {
      const bytes = Uint8Array.from(good);
      for (const [at, value] of changes) bytes[at] = value;
      return bytes;
    });
  const truncated = fc.nat(good.length - 1).map((length) => good.slice(0, length));
  const garbage = fc.uint8Array({ maxLength: 300 });
  let refused = 0;
  try {
    await fc.assert(
      fc.asyncProperty(fc.oneof(damaged, truncated, garbage), async (bytes) => {
        try {
          const session = await compileModel(runtime, bytes, SETTINGS, "fuzz");
          runtime.api.functions.releaseSession(session); // the damage has done no harm
        } catch (error) {
          assert.ok(
            error instanceof LockstepError && error.code === "ENGINE_FAILED",
            String(error),
          );
          refused += 1;
        }
      }),
      { numRuns: 400, seed: 4 },
    );
  } finally {
    runtime.release();
  }
  assert.ok(refused > 200, `${refused} of 400 were refused`);
});

test("wrong tensors in all combinations are errors", async () => {
  const engine = createOrtEngine({ threads: 1 });
  const other = createOrtEngine({ threads: 1 });
  const executable = await engine.compile(model());
  const [output = ""] = executable.graph.outputs;
  const buffers = { engine: engine.allocateHost(4096), other: other.allocateHost(4096) };
  const tensor = fc
    .record({
      owner: fc.constantFrom("engine" as const, "engine" as const, "other" as const),
      dtype: fc.constantFrom<DType>("float32", "float32", ...(Object.keys(DTYPES) as DType[])),
      shape: fc.constantFrom([4, 4], [4, 4], [16], [4, 4, 1], [0], [4, 5]),
      offset: fc.constantFrom(0, 64, 128, 32),
    })
    .map(({ owner, dtype, shape, offset }) => ({
      owner,
      fits: owner === "engine" && dtype === "float32" && String(shape) === "4,4",
      tensor: buffers[owner].tensor({ dtype, shape }, offset),
    }));
  const name = fc.constantFrom("x", "x", "x", output, "", "w", "__proto__", "toString");
  let bound = 0;
  await fc.assert(
    fc.asyncProperty(name, tensor, name, tensor, async (inputName, input, outputName, result) => {
      const named = (key: string, value: HostTensor) => Object.fromEntries([[key, value]]);
      const apart = Math.abs(input.tensor.byteOffset - result.tensor.byteOffset) >= 64;
      const fits = inputName === "x" && outputName === output && input.fits && result.fits && apart;
      try {
        const binding = executable.bind({
          inputs: named(inputName, input.tensor),
          outputs: named(outputName, result.tensor),
        });
        assert.ok(fits, "what does not fit was bound");
        await binding.run();
        binding.close();
        bound += 1;
      } catch (error) {
        assert.ok(!fits && error instanceof LockstepError, String(error));
      }
    }),
    {
      numRuns: 1000,
      seed: 4,
      examples: [
        [
          "x",
          { owner: "engine", fits: true, tensor: good(buffers.engine.tensor, 0) },
          output,
          { owner: "engine", fits: true, tensor: good(buffers.engine.tensor, 64) },
        ],
      ],
    },
  );
  assert.ok(bound > 0);
  await Promise.all([engine.close(), other.close()]);

  function good(make: typeof buffers.engine.tensor, offset: number): HostTensor {
    return make.call(buffers.engine, { dtype: "float32", shape: [4, 4] }, offset);
  }
});

test("thousands of executions, bindings, sessions and failures leak no memory", {
  skip: process.platform !== "linux",
}, async () => {
  const engine = createOrtEngine({ threads: 2 });
  const graph = model();
  const [output = ""] = graph.outputs;
  const broken = {
    ...graph,
    nodes: graph.nodes.map((node) => ({ ...node, op: "NoSuchOperator" })),
  };
  const type = { dtype: "float32" as const, shape: [4, 4] };
  const round = async (): Promise<void> => {
    const executable = await engine.compile(graph);
    const buffer = engine.allocateHost(1 << 16);
    buffer.bytes.fill(1);
    for (let i = 0; i < 10; i++) {
      const binding = executable.bind({
        inputs: { x: buffer.tensor(type, 0) },
        outputs: { [output]: buffer.tensor(type, 64) },
      });
      for (let run = 0; run < 10; run++) await binding.run();
      binding.runSync();
      binding.close();
    }
    assert.throws(() => executable.bind({ inputs: {}, outputs: {} }));
    executable.close();
    buffer.close();
    await assert.rejects(engine.compile(broken));
  };
  for (let i = 0; i < 150; i++) await round();
  const before = nativeBytes();
  for (let i = 0; i < 200; i++) await round();
  const grown = nativeBytes() - before;
  assert.ok(grown < 8 * 2 ** 20, `${(grown / 2 ** 20).toFixed(1)} MiB more after 200 rounds`);
  await engine.close();
});

/** The memory of this process without its JavaScript heap, which grows and shrinks as it likes. */
function nativeBytes(): number {
  const resident = Number(fs.readFileSync("/proc/self/statm", "utf8").split(" ")[1]) * 4096;
  return resident - process.memoryUsage().heapTotal;
}
