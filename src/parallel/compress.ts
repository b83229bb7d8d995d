/**
 * Exchanges gradients in half the bytes: each is cast to float16 before it is summed over
 * micro-batches and ranks, and cast back afterwards. After the fp16 hook of PyTorch's
 * DistributedDataParallel. `docs/strategies.md` explains this file line by line.
 */
import { LockstepError } from "../errors.ts";
import { cast } from "../functional/index.ts";
import type { Graph, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import {
  buildNamed,
  type ComputeTask,
  GRADIENT,
  isOfKind,
  MICRO_BATCH,
  type ReduceTask,
  type StepGraph,
  type StepTask,
  type StepValue,
  valueName,
  valueOf,
} from "../plan/index.ts";
import type { Strategy } from "./strategy.ts";

/**
 * This changes results: sums have eleven significant bits, and a value above 65,504 becomes
 * infinite, which ends the step as not finite.
 * @throws INVALID_OPTION when applied, if gradients are summed in buckets or shards
 */
export function compress(): Strategy {
  return { name: "gradients in float16", rewrite };
}

function rewrite(step: StepGraph): StepGraph {
  const [sum, ...others] = step.tasks.filter(isOfKind("reduce"));
  if (others.length > 0 || sum?.each === MICRO_BATCH) {
    throw new LockstepError(
      "INVALID_OPTION",
      "Gradients cannot be exchanged in float16 where they are summed in buckets or shards.",
      { hint: "Use zero 1 or none, and on several nodes one bucket: a large bucketBytes." },
    );
  }
  const parts = (sum?.inputs ?? []).filter((name) => isWideGradient(valueOf(step, name)));
  if (sum === undefined || parts.length === 0) return step;
  const sums = parts.map((name) => sum.outputs[sum.inputs.indexOf(name)] as string);
  const values = new Map(step.values);
  const half = (name: string, stage: string): string => {
    const value = valueOf(step, name);
    const own = valueName(stage, value.of);
    values.set(own, { ...value, role: "compressed", type: { ...value.type, dtype: "float16" } });
    return own;
  };
  const down = castTask({ values }, `${GRADIENT}, compressed`, MICRO_BATCH, {
    inputs: parts,
    outputs: parts.map((name) => half(name, "partial compressed")),
  });
  const up = castTask({ values }, "gradients, decompressed", "step", {
    inputs: sums.map((name) => half(name, "compressed")),
    outputs: sums,
  });
  const swap = (names: readonly string[], from: readonly string[], to: readonly string[]) =>
    names.map((name) => to[from.indexOf(name)] ?? name);
  const travelling: ReduceTask = {
    ...sum,
    inputs: swap(sum.inputs, parts, down.task.outputs),
    outputs: swap(sum.outputs, sums, up.task.inputs),
  };
  const tasks = step.tasks.flatMap((task): StepTask[] =>
    task === sum ? [down.task, travelling, up.task] : [task],
  );
  const graphs = new Map(step.graphs).set(down.task.graph, down.graph).set(up.task.graph, up.graph);
  return { ...step, values, graphs, tasks };
}

function isWideGradient({ role, type }: StepValue): boolean {
  return role === "gradient" && type.dtype === "float32";
}

/** One task with a graph that casts all of these values. */
function castTask(
  step: Pick<StepGraph, "values">,
  name: string,
  each: ComputeTask["each"],
  { inputs, outputs }: Pick<ComputeTask, "inputs" | "outputs">,
): { readonly task: ComputeTask; readonly graph: Graph } {
  const builder = newBuilder(name);
  const typeOf = (value: string) => (step.values.get(value) as StepValue).type;
  const made = inputs.map((input, at): [string, Value] => {
    const from = builder.input(`from.${at}`, typeOf(input));
    return [`to.${at}`, cast(from, typeOf(outputs[at] as string).dtype)];
  });
  const graph = buildNamed(builder, new Map(made));
  return { task: { kind: "compute", name, graph: name, each, inputs, outputs }, graph };
}
