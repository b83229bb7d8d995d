/** After a step that is not finite: runs it again with a probe on every value, and names the first that failed. */
import type { Engine } from "../engine/index.ts";
import { cast, concat, mul, reduceSum, reshape } from "../functional/index.ts";
import type { Graph } from "../graph/index.ts";
import { typeOf } from "../graph/index.ts";
import { extendGraph } from "../ops/index.ts";
import { isFloat, toNumbers } from "../tensor/index.ts";
import type { Instance } from "./instance.ts";
import type { Run } from "./program.ts";

export interface Suspect {
  readonly tensor: string;
  /** The node that made it; undefined for an input. */
  readonly node: string | undefined;
  readonly kind: "input" | "activation" | "gradient";
}

interface Probed {
  readonly graph: Graph;
  /** In the order of the graph: inputs, activations, gradients. */
  readonly suspects: readonly Suspect[];
}

/** The first value of `run` that holds a NaN or an infinity, or undefined if all are finite. */
export async function firstNotFinite(
  engine: Engine,
  instance: Instance,
  graph: Graph,
  run: Run,
): Promise<Suspect | undefined> {
  const { graph: probed, suspects } = withProbes(graph);
  const executable = await engine.compile(probed);
  const output = probed.outputs[0] as string;
  const type = typeOf(probed, output);
  const buffer = engine.allocate(Math.max(4, suspects.length * 4));
  try {
    const inputs = Object.entries(run.inputs).map(([name, ref]) => [name, instance.tensor(ref)]);
    const probes = buffer.tensor(type);
    const binding = executable.bind({
      inputs: Object.fromEntries(inputs),
      outputs: { [output]: probes },
    });
    await binding.run();
    return suspects[toNumbers(probes).findIndex((probe) => !Number.isFinite(probe))];
  } finally {
    executable.close();
    buffer.close();
  }
}

/** A probe is the sum of x·0: zero, or NaN where anything is not finite. */
function withProbes(graph: Graph): Probed {
  const builder = extendGraph(graph);
  const suspects: Suspect[] = [];
  for (const name of graph.inputs) suspects.push({ tensor: name, node: undefined, kind: "input" });
  for (const node of graph.nodes) {
    const kind = node.name.startsWith("gradient") ? "gradient" : "activation";
    for (const tensor of node.outputs) {
      if (tensor !== "") suspects.push({ tensor, node: node.name, kind });
    }
  }
  const floats = suspects.filter(({ tensor }) => isFloat(typeOf(graph, tensor).dtype));
  const probes = floats.map(({ tensor }) => {
    const sum = reduceSum(mul(builder.value(tensor), 0), { keepdims: false });
    return reshape(cast(sum, "float32"), [1]);
  });
  return { graph: builder.build([concat(probes, 0)]), suspects: floats };
}
