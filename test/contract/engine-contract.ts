/**
 * What every device must do, as tests: types, transfers, bindings, aliasing, parallel executions,
 * ends and errors, with tensors in its own memory and in host memory. `engine.test.ts` runs them
 * over each implementation; what one cannot do is skipped by name, with the reason.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  type Device,
  type DeviceBuffer,
  type DeviceTensor,
  type Executable,
  evaluate,
  type Space,
} from "../../src/engine/index.ts";
import type { Graph, GraphBuilder, Value } from "../../src/graph/index.ts";
import { openMemory } from "../../src/memory/index.ts";
import { newBuilder } from "../../src/ops/index.ts";
import {
  byteLength,
  DTYPES,
  type DType,
  type Shape,
  tensorFrom,
  tensorFromBytes,
  toNumbers,
} from "../../src/tensor/index.ts";

export interface ContractOptions {
  readonly create: () => Device;
  /** The types that the engine cannot pass through, each with the reason. */
  readonly skipTypes?: Readonly<Partial<Record<DType, string>>>;
}

const F32: DType = "float32";

export function engineContract(name: string, options: ContractOptions): void {
  describe(`engine ${name}`, () => {
    let engine: Device;
    before(() => {
      engine = options.create();
    });
    after(() => engine.close());
    const get = () => engine;
    describeTypes(get, options);
    describeTransfers(options);
    for (const space of ["device", "host"] as const) {
      const on = { get, create: options.create, space };
      describe(`with tensors in ${space} memory`, () => {
        describeBindings(on);
        describeAliases(on);
        describeRuns(on);
        describeEnds(on);
      });
    }
    describeSharing(get);
  });
}

export function graphOf(
  shapes: Readonly<Record<string, Shape>>,
  body: (values: Record<string, Value>, builder: GraphBuilder) => Value | Value[],
  dtype: DType = F32,
): Graph {
  const builder = newBuilder("contract");
  const values = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [name, builder.input(name, { dtype, shape })]),
  );
  return builder.build([body(values, builder)].flat());
}

/** Returns a graph for x + y over vectors of `length`. */
export function addition(length: number): Graph {
  return graphOf({ x: [length], y: [length] }, ({ x, y }, b) => b.one("Add", [x, y]));
}

/** The device of tensors, and their memory space. */
interface On {
  readonly get: () => Device;
  readonly create: () => Device;
  readonly space: Space;
}

function allocate(engine: Device, space: Space, bytes: number): DeviceBuffer {
  return space === "host" ? engine.allocateHost(bytes) : engine.allocate(bytes);
}

/** Returns a filled tensor in a buffer of its own. */
function place(engine: Device, space: Space, dtype: DType, shape: Shape, fill = 0): DeviceTensor {
  const type = { dtype, shape };
  const tensor = allocate(engine, space, Math.max(1, byteLength(type))).tensor(type);
  const count = shape.reduce((product, size) => product * size, 1);
  engine.upload(tensor, tensorFrom(dtype, shape, new Array<number>(count).fill(fill)).bytes);
  return tensor;
}

function bindAddition(engine: Device, space: Space, executable: Executable, x: number, y: number) {
  const { graph } = executable;
  const shape = graph.types.get("x")?.shape ?? [];
  const output = place(engine, space, F32, shape);
  const binding = executable.bind({
    inputs: { x: place(engine, space, F32, shape, x), y: place(engine, space, F32, shape, y) },
    outputs: { [outputOf(graph)]: output },
  });
  return { binding, output };
}

async function numbersIn(engine: Device, tensor: DeviceTensor): Promise<number[]> {
  return toNumbers(await engine.download(tensor));
}

function outputOf(graph: Graph, index = 0): string {
  return graph.outputs[index] ?? "";
}

function code(wanted: string): (error: unknown) => boolean {
  return (error) => {
    assert.equal((error as { code?: string }).code, wanted, String(error));
    return true;
  };
}

function describeTypes(get: () => Device, { skipTypes = {} }: ContractOptions): void {
  for (const dtype of Object.keys(DTYPES) as DType[]) {
    test(`passes ${dtype} through, bit for bit`, { skip: skipTypes[dtype] ?? false }, async () => {
      const graph = graphOf({ x: [3, 5] }, ({ x }, b) => b.one("Identity", [x]), dtype);
      const numbers = Array.from({ length: 15 }, (_, i) => (dtype === "bool" ? i % 2 : i * 7));
      const x = tensorFrom(dtype, [3, 5], numbers);
      const results = await evaluate(get(), graph, { x });
      assert.deepEqual(results[outputOf(graph)]?.bytes, x.bytes);
    });
  }

  test("takes scalars and tensors without elements", async () => {
    const scalars = graphOf({ x: [], y: [] }, ({ x, y }, b) => b.one("Add", [x, y]));
    const one = tensorFrom(F32, [], [1]);
    const sum = (await evaluate(get(), scalars, { x: one, y: one }))[outputOf(scalars)];
    assert.deepEqual(sum && toNumbers(sum), [2]);
    const none = graphOf({ x: [0, 4], y: [0, 4] }, ({ x, y }, b) => b.one("Add", [x, y]));
    const empty = tensorFrom(F32, [0, 4], []);
    const nothing = (await evaluate(get(), none, { x: empty, y: empty }))[outputOf(none)];
    assert.equal(nothing?.bytes.byteLength, 0);
  });

  test("gives inputs, constants and one value twice as outputs", async () => {
    const graph = graphOf({ x: [2], unused: [3] }, ({ x }, b) => {
      const sum = b.one("Add", [x, x]);
      return [x as Value, b.constant(tensorFrom(F32, [2], [5, 6])), sum, sum];
    });
    const inputs = { x: tensorFrom(F32, [2], [1, 2]), unused: tensorFrom(F32, [3], [0, 0, 0]) };
    const results = await evaluate(get(), graph, inputs);
    const numbers = graph.outputs.map((name) => {
      const result = results[name];
      return result && toNumbers(result);
    });
    assert.deepEqual(numbers, [
      [1, 2],
      [5, 6],
      [2, 4],
      [2, 4],
    ]);
  });
}

function describeTransfers({ create }: ContractOptions): void {
  const vector = { dtype: F32, shape: [4] };
  const values = tensorFrom(F32, [4], [1, 2, 3, 4]).bytes;

  test("device memory starts as zeros, and returns what was uploaded", async () => {
    const engine = create();
    const buffer = engine.allocate(64);
    assert.equal(buffer.space, "device");
    const [first, second] = [buffer.tensor(vector), buffer.tensor(vector, 32)];
    assert.deepEqual(await numbersIn(engine, second), [0, 0, 0, 0]);
    engine.upload(second, values);
    assert.deepEqual(await numbersIn(engine, second), [1, 2, 3, 4]);
    assert.deepEqual(await numbersIn(engine, first), [0, 0, 0, 0]);
    assert.deepEqual(
      await numbersIn(engine, buffer.tensor({ dtype: F32, shape: [2] }, 40)),
      [3, 4],
    );
    await engine.close();
  });

  test("host memory is seen as bytes, in both directions", async () => {
    const engine = create();
    const tensor = engine.allocateHost(16).tensor(vector);
    assert.equal(tensor.buffer.space, "host");
    tensor.bytes.set(values);
    assert.deepEqual(await numbersIn(engine, tensor), [1, 2, 3, 4]);
    engine.upload(tensor, tensorFrom(F32, [4], [5, 6, 7, 8]).bytes);
    assert.deepEqual(toNumbers(tensor), [5, 6, 7, 8]);
    await engine.close();
  });

  for (const [from, to] of [
    ["device", "device"],
    ["device", "host"],
    ["host", "device"],
  ] as const) {
    test(`copies from ${from} to ${to} memory`, async () => {
      const engine = create();
      const source = allocate(engine, from, 32).tensor(vector, 16);
      const target = allocate(engine, to, 48).tensor({ dtype: "int8", shape: [16] }, 32);
      engine.upload(source, values);
      await engine.copy(source, target);
      assert.deepEqual((await engine.download(target)).bytes, values);
      await engine.close();
    });
  }

  test("transfers of a wrong length, of another device or after a close are errors", async () => {
    const [engine, other] = [create(), create()];
    const tensor = engine.allocate(64).tensor(vector);
    assert.throws(() => engine.upload(tensor, values.subarray(4)), code("SHAPE_MISMATCH"));
    const longer = engine.allocate(64).tensor({ dtype: F32, shape: [5] });
    await assert.rejects(engine.copy(tensor, longer), code("SHAPE_MISMATCH"));
    assert.throws(() => other.upload(tensor, values), code("INVALID_BINDING"));
    await assert.rejects(other.download(tensor), code("INVALID_BINDING"));
    await assert.rejects(
      other.copy(tensor, other.allocate(16).tensor(vector)),
      code("INVALID_BINDING"),
    );
    tensor.buffer.close();
    assert.throws(() => engine.upload(tensor, values), code("ENGINE_CLOSED"));
    await assert.rejects(engine.download(tensor), code("ENGINE_CLOSED"));
    await Promise.all([engine.close(), other.close()]);
  });

  test("one execution takes tensors of both spaces", async () => {
    const engine = create();
    const executable = await engine.compile(addition(4));
    const x = place(engine, "host", F32, [4], 1);
    const y = place(engine, "device", F32, [4], 2);
    const output = place(engine, "device", F32, [4]);
    const bound = { inputs: { x, y }, outputs: { [outputOf(executable.graph)]: output } };
    await executable.bind(bound).run();
    assert.deepEqual(await numbersIn(engine, output), [3, 3, 3, 3]);
    await engine.close();
  });
}

function describeBindings({ get, space }: On): void {
  const cases: readonly [string, string, (good: Parts, engine: Device) => Partial<Parts>][] = [
    [
      "a missing input",
      "INVALID_BINDING",
      ({ inputs: { x } }) => ({ inputs: { x: x as DeviceTensor } }),
    ],
    ["a missing output", "INVALID_BINDING", () => ({ outputs: {} })],
    [
      "an unknown input",
      "INVALID_BINDING",
      ({ inputs }) => ({ inputs: { ...inputs, z: inputs["x"] as DeviceTensor } }),
    ],
    [
      "a name of Object.prototype",
      "INVALID_BINDING",
      ({ inputs }) => ({ inputs: { ...inputs, constructor: inputs["x"] as DeviceTensor } }),
    ],
    [
      "a wrong shape",
      "SHAPE_MISMATCH",
      ({ inputs }, e) => ({ inputs: { ...inputs, y: place(e, space, F32, [4, 2]) } }),
    ],
    [
      "a wrong type",
      "TYPE_MISMATCH",
      ({ inputs }, e) => ({ inputs: { ...inputs, y: place(e, space, "int32", [8]) } }),
    ],
    [
      "an output that overlaps an input",
      "INVALID_BINDING",
      ({ outputs }, e) => overlapping(outputs, e, space),
    ],
  ];
  for (const [what, wanted, change] of cases) {
    test(`refuses ${what}`, async () => {
      const engine = get();
      const executable = await engine.compile(addition(8));
      const good: Parts = {
        inputs: { x: place(engine, space, F32, [8]), y: place(engine, space, F32, [8]) },
        outputs: { [outputOf(executable.graph)]: place(engine, space, F32, [8]) },
      };
      assert.throws(() => executable.bind({ ...good, ...change(good, engine) }), code(wanted));
      executable.bind(good).close();
      executable.close();
    });
  }

  test("refuses a tensor beyond its buffer", () => {
    const buffer = allocate(get(), space, 64);
    assert.throws(() => buffer.tensor({ dtype: F32, shape: [17] }), code("INVALID_BINDING"));
    assert.throws(() => buffer.tensor({ dtype: F32, shape: [16] }, 4), code("INVALID_BINDING"));
    assert.throws(() => buffer.tensor({ dtype: F32, shape: [1] }, -4), code("INVALID_BINDING"));
    buffer.close();
  });
}

interface Parts {
  readonly inputs: Record<string, DeviceTensor>;
  readonly outputs: Record<string, DeviceTensor>;
}

function overlapping(outputs: Record<string, DeviceTensor>, engine: Device, space: Space): Parts {
  const buffer = allocate(engine, space, 256);
  const vector = { dtype: F32, shape: [8] };
  const [name = ""] = Object.keys(outputs);
  return {
    inputs: { x: buffer.tensor(vector, 0), y: buffer.tensor(vector, 64) },
    outputs: { [name]: buffer.tensor(vector, 16) },
  };
}

function describeAliases({ get, space }: On): void {
  test("an update may be written over its input", async () => {
    const engine = get();
    const graph = graphOf({ p: [1000], g: [1000] }, ({ p, g }, b) => {
      const decayed = b.one("Mul", [p, b.scalar(F32, 0.5)]);
      return b.one("Add", [decayed, g]);
    });
    const executable = await engine.compile(graph);
    assert.equal(executable.mayAlias(outputOf(graph), "p"), true);
    const p = place(engine, space, F32, [1000], 8);
    const g = place(engine, space, F32, [1000], 1);
    const binding = executable.bind({ inputs: { p, g }, outputs: { [outputOf(graph)]: p } });
    await binding.run();
    await binding.run();
    assert.deepEqual(new Set(await numbersIn(engine, p)), new Set([3.5]));
    executable.close();
  });

  test("aliases are allowed only if they are safe", async () => {
    const engine = get();
    const allows = async (graph: Graph, output: number, input: string) => {
      const executable = await engine.compile(graph);
      const answer = executable.mayAlias(outputOf(graph, output), input);
      executable.close();
      return answer;
    };
    const product = graphOf({ x: [4, 4], y: [4, 4] }, ({ x, y }, b) => b.one("MatMul", [x, y]));
    assert.equal(await allows(product, 0, "x"), false, "a product reads what it has written");
    const later = graphOf({ x: [4], y: [4] }, ({ x, y }, b) => [
      b.one("Add", [x, y]),
      b.one("Mul", [x, y]),
    ]);
    assert.equal(await allows(later, 0, "x"), false, "another node may read x later");
    const chain = graphOf({ x: [4], y: [4] }, ({ x, y }, b) => {
      const first = b.one("Add", [x, y]);
      return [first, b.one("Mul", [first, y])];
    });
    assert.equal(await allows(chain, 0, "x"), true);
    assert.equal(await allows(chain, 1, "x"), true);
    assert.equal(await allows(chain, 0, "y"), false, "the second output reads y after the first");
    assert.equal(await allows(chain, 1, "y"), true);
    const broadcast = graphOf({ x: [4, 4], y: [4] }, ({ x, y }, b) => b.one("Add", [x, y]));
    assert.equal(await allows(broadcast, 0, "y"), false, "y is smaller");
    assert.equal(await allows(broadcast, 0, "x"), true);
  });
}

function describeRuns({ get, space }: On): void {
  test("several bindings run at the same time, and one graph serves all of them", async () => {
    const engine = get();
    const executable = await engine.compile(addition(10_000));
    const runs = Array.from({ length: 8 }, (_, i) =>
      bindAddition(engine, space, executable, i, 100),
    );
    for (let round = 0; round < 5; round++) {
      for (const { output } of runs) engine.upload(output, new Uint8Array(40_000));
      await Promise.all(runs.map(({ binding }) => binding.run()));
      const found = runs.map(async ({ output }) => new Set(await numbersIn(engine, output)));
      assert.deepEqual(
        await Promise.all(found),
        Array.from({ length: 8 }, (_, i) => new Set([i + 100])),
      );
    }
    executable.close();
  });

  test("an execution on the calling thread gives the same result", async () => {
    const engine = get();
    const executable = await engine.compile(addition(3));
    const { binding, output } = bindAddition(engine, space, executable, 1, 2);
    binding.runSync();
    assert.deepEqual(await numbersIn(engine, output), [3, 3, 3]);
    executable.close();
  });

  test("two executions of one binding do not overlap", async () => {
    const engine = get();
    const executable = await engine.compile(addition(3));
    const { binding } = bindAddition(engine, space, executable, 1, 2);
    const first = binding.run();
    const second = binding.run();
    assert.throws(() => binding.runSync(), code("INVALID_BINDING"));
    await assert.rejects(second, code("INVALID_BINDING"));
    await first;
    await binding.run();
    executable.close();
  });

  test("equal graphs keep their own names", async () => {
    const engine = get();
    const first = await engine.compile(addition(4));
    const renamed = graphOf({ left: [4], right: [4] }, ({ left, right }, b) =>
      b.within("layer", () => b.one("Add", [left, right])),
    );
    const second = await engine.compile(renamed);
    first.close();
    const left = place(engine, space, F32, [4], 1);
    const output = place(engine, space, F32, [4]);
    const binding = second.bind({
      inputs: { left, right: left },
      outputs: { [outputOf(renamed)]: output },
    });
    await binding.run();
    assert.deepEqual(await numbersIn(engine, output), [2, 2, 2, 2]);
    second.close();
  });

  test("a signal ends an execution, and the binding runs again after it", async () => {
    const engine = get();
    const executable = await engine.compile(addition(4));
    const { binding, output } = bindAddition(engine, space, executable, 1, 2);
    const reason = new Error("enough");
    await assert.rejects(binding.run({ signal: AbortSignal.abort(reason) }), reason);
    const controller = new AbortController();
    const run = binding.run({ signal: controller.signal });
    controller.abort(reason);
    await run.catch((error: unknown) => assert.equal(error, reason)); // or it had ended already
    await binding.run();
    assert.deepEqual(await numbersIn(engine, output), [3, 3, 3, 3]);
    executable.close();
  });

  test("an unknown operator is an error, and does no harm", async () => {
    const engine = get();
    const good = addition(2);
    const nodes = good.nodes.map((node) => ({ ...node, op: "NoSuchOperator" }));
    await assert.rejects(engine.compile({ ...good, nodes }), code("ENGINE_FAILED"));
    const x = tensorFrom(F32, [2], [1, 2]);
    const results = await evaluate(engine, good, { x, y: x });
    assert.deepEqual(results[outputOf(good)]?.bytes, tensorFrom(F32, [2], [2, 4]).bytes);
  });
}

function describeEnds({ create, space }: On): void {
  test("closing twice does no harm, and use after close is an error", async () => {
    const engine = create();
    const executable = await engine.compile(addition(4));
    const { binding, output } = bindAddition(engine, space, executable, 1, 2);
    const vector = { dtype: F32, shape: [4] };
    binding.close();
    binding.close();
    await assert.rejects(binding.run(), code("ENGINE_CLOSED"));
    assert.throws(() => binding.runSync(), code("ENGINE_CLOSED"));
    const second = bindAddition(engine, space, executable, 1, 2);
    output.buffer.close();
    output.buffer.close();
    await assert.rejects(engine.download(output), code("ENGINE_CLOSED"));
    assert.throws(() => output.buffer.tensor(vector), code("ENGINE_CLOSED"));
    second.output.buffer.close();
    await assert.rejects(second.binding.run(), code("ENGINE_CLOSED"));
    executable.close();
    executable.close();
    assert.throws(() => executable.bind({ inputs: {}, outputs: {} }), code("ENGINE_CLOSED"));
    await engine.close();
    await engine.close();
    assert.throws(() => allocate(engine, space, 1), code("ENGINE_CLOSED"));
    await assert.rejects(engine.compile(addition(4)), code("ENGINE_CLOSED"));
  });

  test("closing waits for executions in progress", async () => {
    const engine = create();
    const executable = await engine.compile(addition(100_000));
    const runs = Array.from({ length: 6 }, () => bindAddition(engine, space, executable, 1, 2));
    const downloads = await Promise.all(runs.map(({ output }) => engine.download(output)));
    const views = downloads.map(({ bytes }) => bytes);
    let ended = 0;
    const running = runs.map(async ({ binding }) => {
      await binding.run();
      ended += 1;
    });
    for (const { binding, output } of runs) {
      output.buffer.close();
      binding.close();
    }
    executable.close();
    await engine.close();
    assert.equal(ended, runs.length);
    await Promise.all(running);
    for (const view of views) assert.equal(view.byteLength, 400_000); // reading them still does no harm
    assert.equal(views.flatMap((view) => [view[0], view.at(-1)]).length, 12);
  });

  test("closing while a graph is being compiled is an error for that graph", async () => {
    const engine = create();
    const compiling = engine.compile(addition(4));
    const closing = engine.close();
    await assert.rejects(compiling, code("ENGINE_CLOSED"));
    await closing;
  });
}

function describeSharing(get: () => Device): void {
  test("another process maps a shared buffer", async () => {
    const engine = get();
    const name = `contract-${process.pid}-${engine.name}`;
    const buffer = engine.allocateHost(4096, { shareAs: name });
    buffer.bytes.fill(41);
    const child = fileURLToPath(new URL("./child-maps-memory.js", import.meta.url));
    const { status, stderr } = spawnSync(process.execPath, [child, name, "4096"], {
      encoding: "utf8",
    });
    assert.equal(status, 0, stderr);
    assert.deepEqual(new Set(buffer.bytes), new Set([42]));

    const graph = graphOf({ x: [16] }, ({ x }, b) => b.one("Identity", [x]), "uint8");
    const executable = await engine.compile(graph);
    const x = engine.attach(openMemory(name)).tensor({ dtype: "uint8", shape: [16] }, 64);
    const output = place(engine, "device", "uint8", [16]);
    const binding = executable.bind({ inputs: { x }, outputs: { [outputOf(graph)]: output } });
    await binding.run();
    assert.deepEqual(
      (await engine.download(output)).bytes,
      tensorFromBytes("uint8", [16], new Uint8Array(16).fill(42)).bytes,
    );
    executable.close();
    x.buffer.close();
    buffer.close();
    assert.throws(() => buffer.bytes, code("ENGINE_CLOSED"));
    assert.throws(() => x.bytes, code("ENGINE_CLOSED"));
    assert.throws(() => openMemory(name), code("MEMORY_NAME"));
  });
}
