/**
 * Makes a `ModelDefinition` from an `.onnx` file, to train it like a model written in TypeScript.
 */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { LockstepError } from "../errors.ts";
import { sliceGraph, type Value } from "../graph/index.ts";
import {
  defineModel,
  dropout,
  type Model,
  type ModelDefinition,
  type ModelOutputs,
  normalRows,
  type Scope,
  type StoredForm,
  uniformRows,
} from "../nn/index.ts";
import { type OnnxFile, readModel } from "../onnx/index.ts";
import { elementCount, type Shape, type Tensor } from "../tensor/index.ts";
import { importAtBatch } from "./at-batch.ts";
import { declareParameters } from "./declared.ts";
import { importedValues, readDevices } from "./devices.ts";
import { withFloats } from "./floats.ts";
import type { Imported, ImportOptions, ImportSink } from "./import.ts";
import type { OnnxLoss } from "./losses.ts";
import { checkGiven, type OnnxOptions } from "./options.ts";
import { planWeights, summarizeWeights } from "./plan.ts";
import type { Draw } from "./random.ts";
import type { Weight, WeightPlan } from "./weights.ts";

/**
 * Trains a model from a file:
 *
 * ```ts
 * onnx("resnet.onnx", {
 *   dims: { batch: 8 },
 *   trainable: /^head\./,
 *   loss: crossEntropy({ logits: "output", labels: "labels" }),
 * })
 * ```
 *
 * The first dim of every input is the batch. `batch` may be left out: it is that of the run. The
 * file is read when the model is first built; a path is relative to the folder that the program was
 * started in.
 */
export function onnx(model: string | URL, options: OnnxOptions): ModelDefinition {
  checkGiven(model, options);
  const file = typeof model === "string" ? model : fileURLToPath(model);
  let read: OnnxFile | undefined;
  let plan: WeightPlan | undefined;
  const { dtype } = options;
  if (dtype !== undefined && dtype !== "float32" && dtype !== "float64") {
    throw new LockstepError("INVALID_OPTION", `onnx("${file}"): dtype is "${String(dtype)}".`, {
      hint: "Models from files are trained in float32 or float64.",
    });
  }
  const definition = defineModel(path.basename(file, ".onnx"), (scope) => {
    read ??= dtype === undefined ? readModel(file) : withFloats(readModel(file), dtype);
    plan ??= planOf(read, options);
    return build(scope, read, plan, options);
  });
  const { name } = definition;
  return {
    name,
    build: (asked) => {
      const built = trainedByLoss(definition.build({ ...(dtype && { dtype }), ...asked }));
      const sizes = built.parameters.map(
        (own) => [own.name, elementCount(own.type.shape)] as const,
      );
      return plan === undefined ? built : { ...built, trains: summarizeWeights(plan, sizes) };
    },
  };
}

/** Weights that only other outputs need do not change; PyTorch gives them no gradient either. */
function trainedByLoss(model: Model): Model {
  const { graph, loss } = model;
  const reached = new Set(sliceGraph(graph, { name: graph.name, outputs: [loss] }).inputs);
  const others = model.parameters.filter(({ name }) => !reached.has(name));
  const resized = (batch: number) => trainedByLoss(model.resized(batch));
  if (others.length === 0) return { ...model, resized };
  const constants = new Map(graph.constants);
  for (const { name, initializer } of others) {
    if (initializer.kind === "tensor") constants.set(name, initializer.tensor);
  }
  const shown = others.slice(0, 4).map(({ name }) => name);
  const more = others.length > shown.length ? ", …" : "";
  return {
    ...model,
    resized,
    graph: { ...graph, inputs: graph.inputs.filter((name) => !constants.has(name)), constants },
    parameters: model.parameters.filter(({ name }) => reached.has(name)),
    notes: [
      ...model.notes,
      `${others.length} weights are not trained, because the loss does not depend on them: ${shown.join(", ")}${more}.`,
    ],
  };
}

function planOf(file: OnnxFile, { parameters }: OnnxOptions): WeightPlan {
  const plan = planWeights(file);
  if (parameters === undefined) return plan;
  const list = parameters instanceof URL ? fileURLToPath(parameters) : parameters;
  return declareParameters(file, plan, list);
}

/** Builds the graph. An output of the file whose name the loss also uses becomes `NAME_output`. */
function build(scope: Scope, file: OnnxFile, plan: WeightPlan, options: OnnxOptions): ModelOutputs {
  const { graph } = file.model;
  const { trainable } = options;
  const trained: Weight[] = [];
  const shapes = new Map<string, Shape>();
  const sink: ImportSink = {
    input: (name, type) => scope.input(name, type.shape, type.dtype),
    parameter: (name, tensor, weight) => {
      trained.push(weight);
      shapes.set(name, tensor.shape);
      checkType(file, name, tensor.dtype, scope.dtype);
      const stored = storedForm(weight, tensor);
      return scope.parameter(name, tensor.shape, { kind: "tensor", tensor }, { stored });
    },
    state: (name, tensor) =>
      scope.state(name, tensor.shape, { kind: "tensor", tensor }, tensor.dtype),
    dropout: (x, rate) => dropout(scope, x, rate),
    ...(scope.exported ? {} : { draw: drawOf(scope) }),
  };
  const outputNames = graph.output.map(({ name }) => name);
  const imported = importAtBatch(scope.builder, file, sink, {
    ...options,
    ...batchOf(scope, file, options),
    mode: scope.mode,
    plan,
    trainable: trainable ?? true,
    reserved: [
      "loss",
      "accuracy",
      ...outputNames,
      ...plan.graph.initializer.map(({ name }) => `${name}.next`),
    ],
  });
  if (trained.length === 0) noneTrained(file, plan, trainable);
  for (const notice of [...plan.notices, ...plan.gradients]) scope.note(notice);
  noteBiases(scope, trained);
  noteSizes(scope, file, options);
  for (const [name, { message }] of imported.leftOut) {
    const [reason = ""] = message.split("\n");
    scope.note(`the output "${name}" is left out, also in model.onnx: ${reason}`);
  }
  if (options.devices !== false && scope.mode === "train") {
    const valueOf = importedValues(plan.graph, imported);
    const { devices, notes } = readDevices(file, { parameters: shapes, valueOf });
    if (devices !== undefined) scope.shareAs(devices);
    for (const note of notes) scope.note(note);
  }
  const given = lossOf(scope, file, imported, options.loss);
  const added: ModelOutputs = "builder" in given ? { loss: given as Value } : given;
  const outputs: Record<string, Value> = {};
  for (const [name, value] of imported.outputs) {
    if (value !== added.loss) outputs[name in added ? `${name}_output` : name] = value;
  }
  return { ...outputs, ...added };
}

/** The run's batch: the first dim of every input, whatever `dims` and `shapes` say of it. */
function batchOf(
  scope: Scope,
  file: OnnxFile,
  { dims, shapes }: OnnxOptions,
): Required<Pick<ImportOptions, "batch" | "dims" | "shapes">> {
  const { batch } = scope;
  const own: Record<string, number> = { ...dims };
  const check = (option: string, size: number | undefined) => {
    if (size === undefined || size === batch || scope.mode !== "train") return;
    throw new LockstepError(
      "INVALID_OPTION",
      `${file.name}: ${option} asks for a batch of ${size}, but the run's micro-batches have ${batch} samples.`,
      { hint: "Leave the batch out there: it follows from batch and microBatches of the run." },
    );
  };
  for (const name of leadingNames(file)) {
    check(`dims: { ${JSON.stringify(name)}: … }`, dims?.[name]);
    own[name] = batch;
  }
  for (const [name, [size]] of Object.entries(shapes ?? {})) {
    check(`shapes: { ${JSON.stringify(name)}: … }`, size);
  }
  const whole = Object.entries(shapes ?? {}).map(([name, shape]) => [
    name,
    shape.length === 0 ? shape : [batch, ...shape.slice(1)],
  ]);
  return { batch, dims: own, shapes: Object.fromEntries(whole) };
}

/** The names that the file gives to the batch dim. */
function leadingNames({ model }: OnnxFile): ReadonlySet<string> {
  const names = model.graph.input.map(
    ({ type }) => type?.tensorType?.shape?.dim[0]?.dimParam ?? "",
  );
  return new Set(names.filter((name) => name !== ""));
}

/** Notes which open dims of the file were fixed to a size. */
function noteSizes(scope: Scope, file: OnnxFile, { dims = {} }: OnnxOptions): void {
  const batch = leadingNames(file);
  const open = new Set<string>();
  for (const { type } of file.model.graph.input) {
    for (const { dimParam } of type?.tensorType?.shape?.dim ?? []) {
      if (dimParam !== "" && dimParam in dims && !batch.has(dimParam)) open.add(dimParam);
    }
  }
  for (const name of open) {
    scope.note(`${name} is ${dims[name]} in this run, and will be in model.onnx.`);
  }
}

/** Draws one row for each sample, or an equal number of rows for every sample. */
function drawOf(scope: Scope): Draw {
  return (kind, shape, whole) => {
    const rows = (shape[0] ?? 0) / scope.batch;
    if (!(rows >= 1) || !Number.isInteger(rows) || (whole && rows !== 1)) return undefined;
    const rowsOf = kind === "normal" ? normalRows : uniformRows;
    return rowsOf(scope, shape);
  };
}

function lossOf(
  scope: Scope,
  file: OnnxFile,
  imported: Imported,
  loss: OnnxLoss,
): Value | ModelOutputs {
  const output = (name: string): Value => {
    const value = imported.outputs.get(name) ?? imported.find(name);
    if (value !== undefined) return value;
    throw new LockstepError("INVALID_OPTION", `${file.name} has no output "${name}".`, {
      hint: `Its outputs are: ${[...imported.outputs.keys()].join(", ")}.`,
      fields: { file: file.name },
    });
  };
  if (typeof loss === "string") return output(loss);
  const fields = new Map<string, Value>();
  return loss({
    batch: scope.batch,
    mode: scope.mode,
    output,
    field: (name, shape, dtype) => {
      const known = imported.inputs.get(name) ?? fields.get(name);
      if (known !== undefined) return known;
      const value = scope.input(name, shape, dtype);
      fields.set(name, value);
      return value;
    },
  });
}

/** Notes if only biases are trained: most often the pattern did not match their layers' weights. */
function noteBiases(scope: Scope, trained: readonly Weight[]): void {
  const names = trained.map(({ name }) => name);
  if (names.some((name) => !/bias$/i.test(name))) return;
  scope.note(`only biases are trained: ${names.slice(0, 4).join(", ")}`);
}

/** The form of a parameter in the state dict, if it differs from the form in the file. */
function storedForm({ layout, ties }: Weight, tensor: Tensor): StoredForm | undefined {
  if (layout === "transposed") return { transposed: true, ties };
  if (layout === "flat") return { shape: [elementCount(tensor.shape)], ties };
  return ties.length > 0 ? { ties } : undefined;
}

function noneTrained(file: OnnxFile, plan: WeightPlan, trainable: OnnxOptions["trainable"]): never {
  const parameters = [...plan.weights.values()].filter(({ role }) => role === "parameter");
  const names = parameters.map(({ name }) => name);
  const shown = names.slice(0, 8).join(", ");
  throw new LockstepError(
    "INVALID_OPTION",
    `${file.name}: no weight is trained${trainable instanceof RegExp ? `, because none matches ${trainable}` : ""}.`,
    {
      hint: `Its weights are: ${names.length === 0 ? "none" : shown}${names.length > 8 ? ", …" : ""}.`,
      fields: { file: file.name },
    },
  );
}

function checkType(file: OnnxFile, name: string, own: string, wanted: string): void {
  if (own === wanted) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `${file.name}: weight "${name}" is ${own}, but the model is trained in ${wanted}.`,
    {
      hint: `Set onnx(…, { dtype: "float32" }) to convert all floats of the file when it is read${own === "float64" ? '; or dtype: "float64"' : ""}.`,
      fields: { file: file.name },
    },
  );
}
