import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { after, describe, test } from "node:test";
import { createOrtEngine, createReferenceEngine } from "../engine/index.ts";
import { add } from "../functional/index.ts";
import type { Graph } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import {
  type BufferSpace,
  ProgramBuilder,
  type RunStage,
  type TensorRef,
} from "../program/program.ts";
import { instantiate } from "./instantiate.ts";

const devices = [createOrtEngine({ threads: 1 }), createReferenceEngine()];
after(() => Promise.all(devices.map((device) => device.close())));

const type = { dtype: "float32", shape: [4] } as const;
const x: TensorRef = { buffer: "x", byteOffset: 16, type };
const y: TensorRef = { buffer: "y", byteOffset: 0, type };

function adding(amount: number): Graph {
  const builder = newBuilder("adding");
  return builder.build([add(builder.input("x", type), amount)]);
}

function program(amount: number, space: BufferSpace, byteLength = 64): ProgramBuilder {
  const made = new ProgramBuilder();
  made.buffer("x", byteLength, space);
  made.buffer("y", 64);
  made.graph("adding", 1, () => adding(amount));
  return made;
}

const stage: RunStage = {
  name: "adding",
  runs: [{ graph: "adding", inputs: { x }, outputs: { [adding(1).outputs[0] as string]: y } }],
  mode: "ordered",
};

for (const device of devices) {
  describe(`an instance on ${device.name}`, () => {
    test("an instance compiles the new graph when a program reuses the name of an earlier graph", async () => {
      const instance = await instantiate(device, program(1, "device"));
      await instance.run(stage);
      assert.deepEqual(await instance.read(y), [1, 1, 1, 1]);
      await instance.load(program(2, "device"));
      await instance.run(stage);
      assert.deepEqual(await instance.read(y), [2, 2, 2, 2]);
      instance.close();
    });

    test("a buffer keeps its contents when it moves between spaces, and is zeroed when it grows", async () => {
      const folder = tmpdir();
      const instance = await instantiate(device, program(1, "device"), undefined, folder);
      instance.write(x, [1, 2, 3, 4]);
      for (const space of ["host", "device", "disk", "device", "disk", "host"] as const) {
        await instance.load(program(1, space));
        const place = instance.tensor(x).buffer.space === "host" ? instance.host("x") : undefined;
        assert.equal(place?.memory.folder, space === "disk" ? folder : undefined);
        assert.deepEqual(await instance.read(x), [1, 2, 3, 4]);
        await instance.run(stage);
        assert.deepEqual(await instance.read(y), [2, 3, 4, 5]);
      }
      assert.deepEqual([...instance.hostTensor(x).bytes.subarray(0, 4)], [0, 0, 128, 63]);
      await instance.load(program(1, "host", 128));
      assert.deepEqual(await instance.read(x), [0, 0, 0, 0]);
      instance.close();
    });

    test("two instances use a buffer, and the one that is closed last closes it", async () => {
      const old = await instantiate(device, program(1, "device"));
      old.write(x, [1, 2, 3, 4]);
      const adopted = { instance: old, names: ["x"] };
      const next = await instantiate(device, program(2, "device"), undefined, undefined, adopted);
      assert.equal(next.tensor(x).buffer, old.tensor(x).buffer);
      assert.notEqual(next.tensor(y).buffer, old.tensor(y).buffer);
      const failed = await instantiate(device, program(3, "device"), undefined, undefined, adopted);
      failed.close();
      old.close();
      await next.run(stage);
      assert.deepEqual(await next.read(y), [3, 4, 5, 6]);
      const kept = next.tensor(x);
      next.close();
      await assert.rejects(async () => device.download(kept), { code: "ENGINE_CLOSED" });
    });

    test("a buffer that has to be another one is not adopted", async () => {
      const old = await instantiate(device, program(1, "device"));
      for (const other of [program(1, "host"), program(1, "device", 128)]) {
        const adopted = { instance: old, names: ["x"] };
        const next = await instantiate(device, other, undefined, undefined, adopted);
        assert.notEqual(next.tensor(x).buffer, old.tensor(x).buffer);
        next.close();
      }
      old.close();
    });

    test("an instance gives the bytes of host buffers only", async () => {
      const instance = await instantiate(device, program(1, "device"));
      assert.throws(() => instance.hostTensor(x), /has the buffer "x" in host memory/);
      assert.throws(() => instance.host("x"), /has the buffer "x" in host memory/);
      instance.close();
      assert.throws(() => instance.host("x"), /has a buffer "x"/);
    });
  });
}
