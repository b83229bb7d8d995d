/**
 * Writes what others use of a run: its weights, a forward model for any ONNX runtime, and its
 * tokenizer.
 */
import type { Dataset } from "../data/index.ts";
import { assert, LockstepError } from "../errors.ts";
import { writeFileAtomic } from "../files/index.ts";
import type { Graph } from "../graph/index.ts";
import { type SymbolicExport, toSymbolicBatch } from "../import/index.ts";
import type { Model, ModelDefinition, StoredForm } from "../nn/index.ts";
import { opsetOf, writeModel } from "../onnx/index.ts";
import { weightsSha256, writeSafetensors } from "../safetensors/index.ts";
import { type Tensor, type TensorType, transpose } from "../tensor/index.ts";
import type { Trainer } from "../train/index.ts";
import { FILES, type RunFolder } from "./folder.ts";
import { bindWeights, forwardGraph } from "./forward.ts";
import type { Run } from "./run.ts";

/** `model.onnx` without its weights, which are inputs here. */
export interface ExportPlan {
  readonly forward: SymbolicExport;
  /** The only batch size that `model.onnx` takes; undefined if it takes any. */
  readonly batch: number | undefined;
}

/**
 * Builds `model.onnx` before the first step, as far as possible, so that after the last step only
 * the disk can fail. A model that cannot be built for any batch size is planned for the first of
 * `sizes` that it can be built for, else for `sizes[0]`.
 * @throws what the model throws when it cannot be built for any of them
 */
export function planExport(model: ModelDefinition, sizes: readonly number[]): ExportPlan {
  const build = (batch: number) =>
    forwardGraph(model.build({ batch, mode: "eval", exported: true }));
  const batch = sizes.find((size, at) => at === sizes.length - 1 || isBuilt(() => build(size)));
  const forward = toSymbolicBatch(build, { fixedBatch: batch ?? 1 });
  opsetOf(forward.graph); // throws if no operator set has all operators of the graph
  return { forward, batch: forward.fixed === undefined ? undefined : batch };
}

function isBuilt(build: () => Graph): boolean {
  try {
    build();
    return true;
  } catch (error) {
    if (error instanceof LockstepError) return false;
    throw error;
  }
}

/** Returns what the user should know about the exported model before the run. */
export function exportNotes({ forward, batch }: ExportPlan): string[] {
  if (batch === undefined) return [];
  const reason = forward.fixed?.replace(/\.$/, "");
  return [`${FILES.model} will take batches of ${batch} only: ${reason}.`];
}

/**
 * Returns the trained forward graph for `batch` samples. Its weights are valid until the next step.
 */
export async function trainedGraph(run: Run, trainer: Trainer, batch: number): Promise<Graph> {
  const { parameters, states } = await trainer.read();
  return bindWeights(forwardGraph(run.model.build({ batch, mode: "eval", exported: true })), {
    ...parameters,
    ...states,
  });
}

/** The parts of a session that an export needs. */
export interface Exporting {
  readonly options: { readonly folder: RunFolder };
  readonly model: Model;
  readonly trainer: Trainer;
  readonly data: Dataset;
  readonly exporting: ExportPlan | undefined;
}

/** Returns the parameters in the form of their module's state dict, under all of their names. */
export function stateDict(
  model: Model,
  parameters: Readonly<Record<string, Tensor>>,
): Record<string, Tensor> {
  const all: Record<string, Tensor> = { ...parameters };
  for (const { name, stored } of model.parameters) {
    const own = parameters[name];
    if (own === undefined || stored === undefined) continue;
    const form = storedForm(own, stored);
    for (const known of [name, ...(stored.ties ?? [])]) all[known] = form;
  }
  return all;
}

/** Returns a weight in the form of its file; a transposed weight is transposed when it is read. */
function storedForm(own: Tensor, { shape, transposed }: StoredForm): Tensor {
  const { dtype, pieces } = own;
  if (transposed !== true) {
    const form = { dtype, shape: shape ?? own.shape };
    return pieces === undefined ? { ...form, bytes: own.bytes } : lazily(form, () => own.bytes);
  }
  const form = { dtype, shape: shape ?? [...own.shape].reverse() };
  return lazily(form, () => transpose(own).bytes);
}

function lazily(form: TensorType, read: () => Uint8Array): Tensor {
  return {
    ...form,
    pieces: () => [read()],
    get bytes() {
      return read();
    },
  };
}

export interface Exported {
  /** File names within the folder. */
  readonly files: readonly string[];
  /** The SHA-256 of the parameters' bytes in the order of their names. */
  readonly weightsSha256: string;
}

/** Writes `model.safetensors`, then `model.onnx`, and `tokenizer.json` for text. */
export async function exportModel(session: Exporting): Promise<Exported> {
  const { options, trainer, data, exporting } = session;
  const { folder } = options;
  assert(exporting !== undefined, "the worker that exports has planned the export");
  const { forward } = exporting;
  await exportWeights(session);
  const { parameters, states } = await trainer.read();
  const graph = bindWeights(forward.graph, { ...parameters, ...states });
  await writeModel(folder.file(FILES.model), graph, forward.encode);
  const files: string[] = [FILES.model, FILES.parameters];
  if (data.text !== undefined) {
    await writeFileAtomic(folder.file(FILES.tokenizer), data.text.tokenizer.toJson());
    files.push(FILES.tokenizer);
  }
  return { files, weightsSha256: weightsSha256(new Map(Object.entries(parameters))) };
}

/**
 * Writes trained weights and running statistics to `model.safetensors`. Returns the file's name.
 */
export async function exportWeights({ options, model, trainer }: Exporting): Promise<string> {
  const { folder } = options;
  const { parameters, states } = await trainer.read();
  const all = new Map(Object.entries({ ...stateDict(model, parameters), ...states }));
  await writeSafetensors(folder.file(FILES.parameters), all, { format: "pt" });
  return FILES.parameters;
}
