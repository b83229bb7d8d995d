/** What a run leaves for others: its weights, a forward model for any ONNX runtime, and its tokenizer. */
import type { Dataset } from "../data/index.ts";
import { writeFileAtomic } from "../files/index.ts";
import type { Graph } from "../graph/index.ts";
import { toSymbolicBatch, writeModel } from "../onnx/index.ts";
import { weightsSha256, writeSafetensors } from "../safetensors/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { FILES, type RunFolder } from "./folder.ts";
import { forwardGraph } from "./forward.ts";
import type { Run } from "./run.ts";
import type { Trainer } from "./step.ts";

/** The trained forward graph for `batch` samples, weights as views of the trainer's memory. */
export function trainedGraph(run: Run, trainer: Trainer, batch: number): Graph {
  const { parameters, states } = trainer.tensors();
  return forwardGraph(run.model.build({ batch, mode: "eval" }), { ...parameters, ...states });
}

export interface Exported {
  /** Names within the folder. */
  readonly files: readonly string[];
  /** SHA-256 over the parameters' bytes in name order. */
  readonly weightsSha256: string;
}

/** Writes `model.safetensors`, `model.onnx` (any batch size) and, for text, `tokenizer.json`. */
export async function exportModel(
  folder: RunFolder,
  run: Run,
  trainer: Trainer,
  data: Dataset,
): Promise<Exported> {
  const { parameters, states } = trainer.tensors();
  const all = new Map<string, Tensor>(Object.entries({ ...parameters, ...states }));
  await writeSafetensors(folder.file(FILES.parameters), all, { format: "pt" });
  const symbolic = toSymbolicBatch((batch) => trainedGraph(run, trainer, batch));
  await writeModel(folder.file(FILES.model), symbolic.graph, symbolic.encode);
  const files: string[] = [FILES.model, FILES.parameters];
  if (data.text !== undefined) {
    await writeFileAtomic(folder.file(FILES.tokenizer), data.text.tokenizer.toJson());
    files.push(FILES.tokenizer);
  }
  return { files, weightsSha256: weightsSha256(new Map(Object.entries(parameters))) };
}
