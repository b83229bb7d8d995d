/**
 * Computes the first values of parameters and states with graphs that write them where they belong.
 */
import type { Device, DeviceBuffer, DeviceTensor, Executable } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { hashGraph } from "../graph/index.ts";
import { type Initializer, initialValue } from "../nn/index.ts";
import { formatType, sameType, type Tensor, type TensorType } from "../tensor/index.ts";
import { inLanes } from "./lanes.ts";

export interface Initialized {
  readonly name: string;
  readonly type: TensorType;
  readonly initializer: Initializer;
  readonly into: DeviceTensor;
}

/**
 * Values depend only on the seed and on the name of each tensor. Equal graphs are compiled once.
 */
export async function initialize(
  device: Device,
  tensors: readonly Initialized[],
  seed: number,
): Promise<void> {
  const compiled = new Map<string, Promise<Executable>>();
  const makeOne = async (item: Initialized): Promise<void> => {
    const value = initialValue(item, seed);
    if (value.kind === "tensor") {
      checkType(item, value.tensor);
      device.upload(item.into, value.tensor.bytes);
      return;
    }
    const hash = hashGraph(value.graph);
    const compiling = compiled.get(hash) ?? device.compile(value.graph, { threads: 1 });
    compiled.set(hash, compiling);
    await runInto(device, await compiling, value.inputs, item.into);
  };
  try {
    await inLanes(tensors, device.threads, makeOne);
  } finally {
    for (const executable of await Promise.allSettled(compiled.values())) {
      if (executable.status === "fulfilled") executable.value.close();
    }
  }
}

/** Runs a graph that has one output. */
async function runInto(
  device: Device,
  executable: Executable,
  inputs: Readonly<Record<string, Tensor>>,
  into: DeviceTensor,
): Promise<void> {
  // Equal graphs share a session, which has the names of the graph that was compiled first.
  const output = executable.graph.outputs[0] as string;
  const buffers: DeviceBuffer[] = [];
  try {
    const feeds = Object.entries(inputs).map(([name, tensor]) => {
      const buffer = device.allocate(tensor.bytes.byteLength);
      buffers.push(buffer);
      const place = buffer.tensor(tensor);
      device.upload(place, tensor.bytes);
      return [name, place] as const;
    });
    const binding = executable.bind({
      inputs: Object.fromEntries(feeds),
      outputs: { [output]: into },
    });
    try {
      await binding.run();
    } finally {
      binding.close();
    }
  } finally {
    for (const buffer of buffers) buffer.close();
  }
}

function checkType({ name, type }: Initialized, given: TensorType): void {
  if (sameType(type, given)) return;
  throw new LockstepError(
    "SHAPE_MISMATCH",
    `Parameter "${name}" is ${formatType(type)}, but its initial value is ${formatType(given)}.`,
  );
}
