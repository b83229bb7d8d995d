/** Describes what is wrong with a step in sentences. */
import { assert, LockstepError } from "../errors.ts";
import { findNotFinite, type Instance } from "../execute/index.ts";
import type { Graph } from "../graph/index.ts";
import { forwardNodes, GRADIENT, isOfKind, type StepGraph } from "../plan/index.ts";
import { type Side } from "../program/index.ts";

export interface NotFinite {
  /** Counted from 0; the error counts from 1 as a run's progress does. */
  readonly step: number;
  readonly loss: number;
  readonly gradientNorm: number;
  readonly tensor: string;
  readonly node?: string | undefined;
  readonly kind?: "input" | "activation" | "gradient";
  readonly microBatch?: number;
}

/** Whether loss and gradient of a step are finite. */
export function isSound({ loss, gradientNorm }: Pick<NotFinite, "loss" | "gradientNorm">): boolean {
  return Number.isFinite(loss) && Number.isFinite(gradientNorm);
}

function notFiniteError(found: NotFinite): LockstepError {
  const { step, loss, gradientNorm, tensor, node, kind, microBatch } = found;
  const what = Number.isFinite(loss)
    ? `the gradient norm is ${gradientNorm}`
    : `the loss is ${loss}`;
  const made = node === undefined ? "" : ` of node "${node}"`;
  const where = microBatch === undefined ? "" : ` (micro-batch ${microBatch})`;
  return new LockstepError(
    "NOT_FINITE",
    `Step ${step + 1}: ${what}. The first ${kind ?? "tensor"} that is not finite is "${tensor}"${made}${where}. ` +
      "The step was not applied: the weights are those after the step before.",
    {
      hint:
        kind === "input"
          ? "Check the data and the initial values."
          : "Try a lower learning rate, a longer warm-up, or clipping of gradients.",
      fields: {
        step: step + 1,
        loss: String(loss),
        gradientNorm: String(gradientNorm),
        tensor,
        ...(node === undefined ? {} : { node }),
        ...(microBatch === undefined ? {} : { microBatch }),
      },
    },
  );
}

/** Runs the gradient of each micro-batch again with probes, and says where it went wrong. */
export async function explainNotFinite(
  instance: Instance,
  stepGraph: StepGraph,
  { gradients }: Side,
  step: Pick<NotFinite, "step" | "loss" | "gradientNorm">,
): Promise<LockstepError> {
  const graph = stepGraph.graphs.get(GRADIENT) as Graph;
  const pass = stepGraph.tasks.filter(isOfKind("compute")).find((task) => task.graph === GRADIENT);
  assert(pass !== undefined, "a step has a forward and backward pass");
  const forward = forwardNodes(stepGraph, pass);
  for (const [microBatch, run] of gradients.entries()) {
    const found = await findNotFinite(instance, graph, forward, run);
    if (found !== undefined) return notFiniteError({ ...step, microBatch, ...found });
  }
  return notFiniteError({ ...step, tensor: "the sum of gradients" });
}
