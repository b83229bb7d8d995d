/** Exports a model out of a checkpoint, as the run itself exports it at its end. */
import { readTensor, type Source } from "../checkpoint/index.ts";
import { LockstepError } from "../errors.ts";
import { hashGraph } from "../graph/index.ts";
import { writeModel } from "../onnx/index.ts";
import { writeSafetensors } from "../safetensors/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { requireWhole } from "./checkpoint.ts";
import { exportNotes, planExport, stateDict } from "./export.ts";
import { bindWeights } from "./forward.ts";
import type { CheckpointHead } from "./head.ts";
import { settleMicroBatches } from "./micro-batches.ts";
import type { Run } from "./run.ts";

export interface ExportedCheckpoint {
  /** Sentences about the file that the user should know. */
  readonly notes: readonly string[];
}

/**
 * Writes `to`: the forward graph with its weights (`.onnx`), or the weights and running statistics
 * under the names of the model's state dict (`.safetensors`).
 * @param given the run that wrote the checkpoint
 * @throws INVALID_OPTION for another kind of file; CHECKPOINT when the checkpoint is damaged, has no
 *   weights or is of another model; DISK_FULL, IO_FAILED, STORE
 */
export async function exportCheckpoint(
  given: Run,
  head: CheckpointHead,
  to: string,
): Promise<ExportedCheckpoint> {
  const isModel = to.endsWith(".onnx");
  if (!isModel && !to.endsWith(".safetensors")) {
    throw new LockstepError("INVALID_OPTION", `"${to}" must end with .onnx or .safetensors.`);
  }
  if (head.step === 0) {
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${head.path}" is that of step 0 and has no weights: the seed makes them.`,
    );
  }
  const run = settleMicroBatches(given, head.identity["microBatches"]);
  const microBatch = run.batch / run.microBatches;
  const model = run.model.build({ batch: microBatch, mode: "train" });
  const [before, now] = [head.identity["model"], hashGraph(model.graph).slice(0, 16)];
  if (before !== undefined && before !== `${model.name}, graph ${now}`) {
    throw new LockstepError(
      "CHECKPOINT",
      `The checkpoint "${head.path}" is of the model ${before}, but the run file has ${model.name}, graph ${now}.`,
      { hint: "Name the run file that the run was started with: --run." },
    );
  }
  await requireWhole(head);
  const { parameters, states } = await weightsIn(head.source);
  if (!isModel) {
    const all = new Map(Object.entries({ ...stateDict(model, parameters), ...states }));
    await writeSafetensors(to, all, { format: "pt" });
    return { notes: [] };
  }
  const plan = planExport(run.model, [1, microBatch]);
  const graph = bindWeights(plan.forward.graph, { ...parameters, ...states });
  await writeModel(to, graph, plan.forward.encode);
  return { notes: exportNotes(plan) };
}

type Tensors = Readonly<Record<string, Tensor>>;

async function weightsIn(source: Source): Promise<Record<"parameters" | "states", Tensors>> {
  try {
    const parameters = await readAll(source, "parameters/");
    return { parameters, states: await readAll(source, "states/") };
  } finally {
    await source.close();
  }
}

async function readAll(source: Source, prefix: string): Promise<Record<string, Tensor>> {
  const found: Record<string, Tensor> = {};
  for (const name of source.tensors.keys()) {
    if (!name.startsWith(prefix)) continue;
    found[name.slice(prefix.length)] = await readTensor(source, name);
  }
  return found;
}
