/** What a run leaves for others: its weights, a forward model for any ONNX runtime, and its tokenizer. */
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

/** `model.onnx` but for its weights, which are inputs. */
export interface ExportPlan {
  readonly forward: SymbolicExport;
  /** The only batch size that `model.onnx` will take; undefined if it takes any. */
  readonly batch: number | undefined;
}

/**
 * Makes all of `model.onnx` that can be made before the first step, so that nothing but the disk is left to fail after the last.
 * A model that cannot be had for any batch size is planned for `sizes[0]`, or the first of them that it has.
 * Throws what the model throws where it has none.
 */
export function planExport(model: ModelDefinition, sizes: readonly number[]): ExportPlan {
  const build = (batch: number) =>
    forwardGraph(model.build({ batch, mode: "eval", exported: true }));
  const batch = sizes.find((size, at) => at === sizes.length - 1 || isBuilt(() => build(size)));
  const forward = toSymbolicBatch(build, { fixedBatch: batch ?? 1 });
  opsetOf(forward.graph); // throws where no operator set has all of its operators
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

/** What the user should know of the exported model before the run. */
export function exportNotes({ forward, batch }: ExportPlan): string[] {
  if (batch === undefined) return [];
  const reason = forward.fixed?.replace(/\.$/, "");
  return [`${FILES.model} will take batches of ${batch} only: ${reason}.`];
}

/** The trained forward graph for `batch` samples. It holds the weights as long as no step follows. */
export async function trainedGraph(run: Run, trainer: Trainer, batch: number): Promise<Graph> {
  const { parameters, states } = await trainer.read();
  return bindWeights(forwardGraph(run.model.build({ batch, mode: "eval", exported: true })), {
    ...parameters,
    ...states,
  });
}

/** What an export needs of a session. */
export interface Exporting {
  readonly options: { readonly folder: RunFolder };
  readonly model: Model;
  readonly trainer: Trainer;
  readonly data: Dataset;
  readonly exporting: ExportPlan | undefined;
}

/** Parameters in the form that the state dict of their module has, under all of their names. */
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

/** A weight in the form of its file; what has to be transposed is so when it is looked at. */
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
  /** Names within the folder. */
  readonly files: readonly string[];
  /** SHA-256 over the parameters' bytes in name order. */
  readonly weightsSha256: string;
}

/** Writes `model.safetensors`, then `model.onnx` and, for text, `tokenizer.json`. */
export async function exportModel(session: Exporting): Promise<Exported> {
  const { options, trainer, data, exporting } = session;
  const { folder } = options;
  assert(exporting !== undefined, "the worker that exports has planned it");
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

/** Writes `model.safetensors`: trained weights and running statistics. Returns its name. */
export async function exportWeights({ options, model, trainer }: Exporting): Promise<string> {
  const { folder } = options;
  const { parameters, states } = await trainer.read();
  const all = new Map(Object.entries({ ...stateDict(model, parameters), ...states }));
  await writeSafetensors(folder.file(FILES.parameters), all, { format: "pt" });
  return FILES.parameters;
}
