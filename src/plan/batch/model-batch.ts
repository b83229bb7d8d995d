/** What a model says of its batch. */
import { LockstepError } from "../../errors.ts";
import { reach } from "../../graph/index.ts";
import type { Model } from "../../nn/index.ts";

/**
 * The model for another number of samples; the model itself if it comes from a file with one size
 * only.
 */
export function resized(model: Model, batch: number): Model {
  try {
    return model.resized(batch);
  } catch (error) {
    if (error instanceof LockstepError && error.code === "ONNX_UNSUPPORTED") return model;
    throw error;
  }
}

/** The number of samples of a batch of the model. */
export function sizeOf(model: Model): number {
  return model.graph.types.get(model.batch[0] ?? "")?.shape[0] ?? 1;
}

/** The inputs whose leading dim is the batch. */
export function fieldsOf({ batch, randomKey }: Model): string[] {
  return [...batch, ...(randomKey === undefined ? [] : [randomKey])];
}

/** The names of all values that the next states are computed from. */
export function statisticsOf({ graph, states }: Model): ReadonlySet<string> {
  const next = states.map((state) => state.next);
  return reach(graph.nodes, next).values;
}
