/** What a finished run leaves for others: a forward model for any ONNX runtime, and its tokenizer. */
import type { Dataset } from "../data/index.ts";
import { writeFileAtomic } from "../files/index.ts";
import type { Graph } from "../graph/index.ts";
import { toSymbolicBatch, writeModel } from "../onnx/index.ts";
import type { RunFolder } from "./folder.ts";
import { forwardGraph } from "./forward.ts";
import type { Run } from "./run.ts";
import type { Trainer } from "./step.ts";

/** The trained forward graph for `batch` samples, weights as views of the trainer's memory. */
export function trainedGraph(run: Run, trainer: Trainer, batch: number): Graph {
  const { parameters, states } = trainer.tensors();
  return forwardGraph(run.model.build({ batch, mode: "eval" }), { ...parameters, ...states });
}

/** Writes `model.onnx` (any batch size) and, for text, `tokenizer.json`. Returns the names of all files for people. */
export async function exportModel(
  folder: RunFolder,
  run: Run,
  trainer: Trainer,
  data: Dataset,
): Promise<string[]> {
  const symbolic = toSymbolicBatch((batch) => trainedGraph(run, trainer, batch));
  await writeModel(folder.file("model.onnx"), symbolic.graph, symbolic.encode);
  const files = ["model.onnx", "model.safetensors"];
  if (data.text !== undefined) {
    await writeFileAtomic(folder.file("tokenizer.json"), data.text.tokenizer.toJson());
    files.push("tokenizer.json");
  }
  return [...files, "checkpoint.safetensors", "metrics.jsonl"];
}
