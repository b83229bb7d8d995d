/**
 * The trap test: a graph gives the same bits on one thread and on two, in many executions. It
 * catches kernels that lose updates, or add in the order in which threads happen to run.
 */
import assert from "node:assert/strict";
import {
  createOrtEngine,
  type Device,
  type HostBuffer,
  type HostTensor,
} from "../../src/engine/index.ts";
import { type Graph, typeOf } from "../../src/graph/index.ts";
import { byteLength, type Tensor } from "../../src/tensor/index.ts";

export interface SameBitsOptions {
  /**
   * The number of executions on two threads that are compared with one on one thread. Default: 20.
   */
  readonly rounds?: number;
  /** An engine with two threads or more. Default: a new one. */
  readonly engine?: Device;
}

/** Fails with the output, the first byte that differs, and how many of the rounds differ. */
export async function assertSameBitsAcrossThreads(
  graph: Graph,
  inputs: Readonly<Record<string, Tensor>>,
  { rounds = 20, engine: given }: SameBitsOptions = {},
): Promise<void> {
  const engine = given ?? createOrtEngine({ threads: 2 });
  try {
    assert.ok(engine.threads >= 2, "this comparison needs an engine with two threads");
    const [expected] = await outputsOf(engine, graph, inputs, 1, 1);
    const found = await outputsOf(engine, graph, inputs, engine.threads, rounds);
    for (const [index, name] of graph.outputs.entries()) {
      const wanted = Buffer.from(expected?.[index] ?? []);
      const different = found.filter((outputs) => !wanted.equals(outputs[index] as Uint8Array));
      const at = wanted.findIndex((byte, place) => byte !== different[0]?.[index]?.[place]);
      assert.equal(
        different.length,
        0,
        `${graph.name}: output "${name}" differs between 1 and ${engine.threads} threads ` +
          `in ${different.length} of ${rounds} runs, first at byte ${at} of ${wanted.length}`,
      );
    }
  } finally {
    if (given === undefined) await engine.close();
  }
}

/** Returns the bytes of every output, for each of `rounds` executions. */
async function outputsOf(
  engine: Device,
  graph: Graph,
  inputs: Readonly<Record<string, Tensor>>,
  threads: number,
  rounds: number,
): Promise<Uint8Array[][]> {
  const executable = await engine.compile(graph, { threads });
  const buffers: HostBuffer[] = [];
  const place = (name: string): HostTensor => {
    const type = typeOf(graph, name);
    const buffer = engine.allocateHost(Math.max(1, byteLength(type)));
    buffers.push(buffer);
    return buffer.tensor(type);
  };
  const placeAll = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, place(name)]));
  try {
    const bound = { inputs: placeAll(graph.inputs), outputs: placeAll(graph.outputs) };
    for (const name of graph.inputs) {
      const tensor = inputs[name];
      assert.ok(tensor, `input "${name}" is missing`);
      bound.inputs[name]?.bytes.set(tensor.bytes);
    }
    const binding = executable.bind(bound);
    const results: Uint8Array[][] = [];
    for (let round = 0; round < rounds; round++) {
      binding.runSync(); // With one thread fewer in the process, the two of the pool really run at once.
      results.push(graph.outputs.map((name) => Uint8Array.from(bound.outputs[name]?.bytes ?? [])));
    }
    return results;
  } finally {
    executable.close();
    for (const buffer of buffers) buffer.close();
  }
}
