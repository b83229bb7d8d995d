/** First values of parameters and states, made by graphs straight into their places. */
import type { Engine, EngineTensor, Executable } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { hashGraph } from "../graph/index.ts";
import { type Initializer, initialValue } from "../nn/index.ts";
import { formatType, sameType, type TensorType } from "../tensor/index.ts";

export interface Initialized {
  readonly name: string;
  readonly type: TensorType;
  readonly initializer: Initializer;
  readonly into: EngineTensor;
}

/** Values depend on the seed and each tensor's name alone. Equal graphs are compiled once. */
export async function initialize(
  engine: Engine,
  tensors: readonly Initialized[],
  seed: number,
): Promise<void> {
  const executables = new Map<string, Executable>();
  try {
    for (const item of tensors) {
      const value = initialValue(item, seed);
      if (value.kind === "tensor") {
        checkType(item, value.tensor);
        item.into.bytes.set(value.tensor.bytes);
        continue;
      }
      const { graph, inputs } = value;
      const hash = hashGraph(graph);
      const executable = executables.get(hash) ?? (await engine.compile(graph, { threads: 1 }));
      executables.set(hash, executable);
      const output = executable.graph.outputs[0] as string;
      const feeds = Object.entries(inputs).map(([name, tensor]) => {
        const buffer = engine.allocate(tensor.bytes.byteLength);
        const place = buffer.tensor(tensor);
        place.bytes.set(tensor.bytes);
        return [name, place] as const;
      });
      const binding = executable.bind({
        inputs: Object.fromEntries(feeds),
        outputs: { [output]: item.into },
      });
      try {
        await binding.run();
      } finally {
        binding.close();
        for (const [, { buffer }] of feeds) buffer.close();
      }
    }
  } finally {
    for (const executable of executables.values()) executable.close();
  }
}

function checkType({ name, type }: Initialized, given: TensorType): void {
  if (sameType(type, given)) return;
  throw new LockstepError(
    "SHAPE_MISMATCH",
    `Parameter "${name}" is ${formatType(type)}, but its initial value is ${formatType(given)}.`,
  );
}
