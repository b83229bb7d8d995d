/**
 * Executes a graph once with tensors as inputs and outputs: for tests, sampling and initial
 * weights. A training step uses bindings instead.
 */

import { LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { typeOf } from "../graph/index.ts";
import { checkOptions, count, type OptionKinds } from "../options.ts";
import { byteLength, formatType, sameType, type Tensor } from "../tensor/index.ts";
import type { CompileOptions, Device, DeviceTensor, HostBuffer, HostTensor } from "./engine.ts";

const EVALUATE_OPTIONS: OptionKinds<CompileOptions> = { threads: count.optional() };

/** Runs `graph` once. Results are copies on the JavaScript heap, by output name. */
export async function evaluate(
  engine: Device,
  graph: Graph,
  inputs: Readonly<Record<string, Tensor>>,
  options?: CompileOptions,
): Promise<Record<string, Tensor>> {
  if (options !== undefined) checkOptions("evaluate", options, EVALUATE_OPTIONS);
  const executable = await engine.compile(graph, options);
  const buffers: HostBuffer[] = [];
  const place = (name: string): HostTensor => {
    const type = typeOf(graph, name);
    const buffer = engine.allocateHost(Math.max(1, byteLength(type)));
    buffers.push(buffer);
    return buffer.tensor(type);
  };
  try {
    const feeds: Record<string, DeviceTensor> = {};
    for (const name of graph.inputs) {
      const given = inputs[name];
      const type = typeOf(graph, name);
      if (given === undefined || !sameType(given, type)) {
        throw new LockstepError(
          "SHAPE_MISMATCH",
          `Graph "${graph.name}": input "${name}" must be ${formatType(type)}, got ${given === undefined ? "nothing" : formatType(given)}.`,
        );
      }
      const tensor = place(name);
      tensor.bytes.set(given.bytes);
      feeds[name] = tensor;
    }
    const fetches: Record<string, HostTensor> = {};
    for (const name of graph.outputs) fetches[name] = place(name);
    const binding = executable.bind({ inputs: feeds, outputs: fetches });
    try {
      await binding.run();
    } finally {
      binding.close();
    }
    return Object.fromEntries(
      Object.entries(fetches).map(([name, { dtype, shape, bytes }]) => [
        name,
        { dtype, shape, bytes: Uint8Array.from(bytes) },
      ]),
    );
  } finally {
    executable.close();
    for (const buffer of buffers) buffer.close();
  }
}
