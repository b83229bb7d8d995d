/** Finds where a step stopped being finite: runs its graph again with a probe on every value. */
import { cast, concat, mul, reduceSum, reshape } from "../functional/index.ts";
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { extendGraph } from "../ops/index.ts";
import type { Run } from "../program/index.ts";
import { byteLength, isFloat, toNumbers } from "../tensor/index.ts";
import type { Instance } from "./instance.ts";

export interface Suspect {
  readonly tensor: string;
  /** The node that computes the value; undefined for an input of the graph. */
  readonly node: string | undefined;
  readonly kind: "input" | "activation" | "gradient";
}

/**
 * Returns the value at which a call went wrong, or undefined if its loss and gradients are finite.
 * The search goes back from the first output that is not finite, over values that are not finite,
 * to one whose node had only finite inputs. So an infinity that does no harm (a mask before a
 * softmax) is not blamed.
 * @param forward the nodes of the forward pass; the others compute gradients
 */
export async function findNotFinite(
  instance: Instance,
  graph: Graph,
  forward: readonly Node[],
  run: Run,
): Promise<Suspect | undefined> {
  for (const nodes of [forward, graph.nodes]) {
    const values = [...graph.inputs, ...nodes.flatMap(({ outputs }) => outputs)].filter(
      (name) => name !== "" && isFloat(typeOf(graph, name).dtype),
    );
    const probes = await runProbes(instance, withProbes(graph, values), run);
    const bad = new Set(values.filter((_, index) => !Number.isFinite(probes[index])));
    const output = graph.outputs.find((name) => bad.has(name));
    if (output !== undefined) return wayBack(graph, new Set(forward), output, bad);
  }
  return undefined;
}

function wayBack(
  graph: Graph,
  forward: ReadonlySet<Node>,
  output: string,
  bad: ReadonlySet<string>,
): Suspect {
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
  let tensor = output;
  for (;;) {
    const maker = makers.get(tensor);
    if (maker === undefined) return { tensor, node: undefined, kind: "input" };
    const cause = maker.inputs.find((name) => bad.has(name));
    if (cause === undefined) {
      const kind = forward.has(maker) ? "activation" : "gradient";
      return { tensor, node: maker.name, kind };
    }
    tensor = cause;
  }
}

/**
 * Adds a probe to every value: the sum of x·0, which is zero, or NaN if an element is not finite.
 * Nodes that no probe needs are left out.
 */
function withProbes(graph: Graph, values: readonly string[]): Graph {
  const builder = extendGraph(graph);
  const probes = values.map((name) => {
    const sum = reduceSum(mul(builder.value(name), 0), { keepdims: false });
    return reshape(cast(sum, "float32"), [1]);
  });
  return builder.build([concat(probes, 0)]);
}

async function runProbes(instance: Instance, probed: Graph, run: Run): Promise<number[]> {
  const { device } = instance;
  const executable = await device.compile(probed);
  const output = probed.outputs[0] as string;
  const type = typeOf(probed, output);
  const buffer = device.allocateHost(byteLength(type));
  try {
    const probes = buffer.tensor(type);
    const inputs = Object.entries(run.inputs).map(([name, ref]) => [name, instance.tensor(ref)]);
    const binding = executable.bind({
      inputs: Object.fromEntries(inputs),
      outputs: { [output]: probes },
    });
    await binding.run();
    return toNumbers(probes);
  } finally {
    executable.close();
    buffer.close();
  }
}
