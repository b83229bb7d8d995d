/**
 * Imports a file as a typed, static graph. Weights to be trained become inputs; all others stay
 * constants.
 */
import { LockstepError } from "../errors.ts";
import { add, mul, type Reduction, scatterND, sub } from "../functional/index.ts";
import type { Graph, GraphBuilder, Value } from "../graph/index.ts";
import type { OnnxFile } from "../onnx/index.ts";
import { newBuilder } from "../ops/index.ts";
import { anything, checkOptions, flag, type OptionKinds } from "../options.ts";
import { elementCount, type Tensor, type TensorType } from "../tensor/index.ts";
import { bindType, DIM_OPTIONS, type DimOptions } from "./dims.ts";
import { checkOpset, Importer } from "./importer.ts";
import { checkLost, chooser, planWeights, type Trainable } from "./plan.ts";
import { type Draw, drawing } from "./random.ts";
import { Scope } from "./scope.ts";
import { statisticNames } from "./statistics.ts";
import type { ImportNode } from "./upgrade/index.ts";
import type { Weight, WeightPlan } from "./weights.ts";

export interface ImportOptions extends DimOptions {
  /**
   * The parameters that are trained: selected by name, or `true` for all. Names are those of the
   * state dict, even if the exporter renamed a weight (`onnx::MatMul_185` is also
   * `blocks.0.qkv.weight`). Default: none.
   */
  readonly trainable?: Trainable;
}

const IMPORT_OPTIONS: OptionKinds<ImportOptions & { readonly partial?: boolean }> = {
  ...DIM_OPTIONS,
  trainable: anything.optional(),
  partial: flag.optional(),
};

/** Provides an imported model's inputs, weights and statistics. */
export interface ImportSink {
  input(name: string, type: TensorType): Value;
  /** Adds a weight that is trained. */
  parameter(name: string, initial: Tensor, weight: Weight): Value;
  /** Adds a running statistic of normalization. Without this function, it stays a constant. */
  state?(name: string, initial: Tensor): ImportedState;
  /**
   * Adds a dropout layer that is active in the file. Without this function, the layer passes its
   * input on.
   */
  dropout?(x: Value, rate: number): Value;
  /** Draws the file's random numbers. Without this function, the engine draws them. */
  readonly draw?: Draw;
}

export interface ImportedState {
  readonly value: Value;
  update(next: Value): void;
}

export interface ImportIntoOptions extends ImportOptions {
  readonly mode?: "train" | "eval";
  /** Names that the caller uses for other values. */
  readonly reserved?: readonly string[];
  /**
   * Whether running statistics are updated again in normalizations of inference exports. Default:
   * false.
   */
  readonly trainStatistics?: boolean;
  /** The plan of the weights, if the caller already has it. */
  readonly plan?: WeightPlan;
}

/** The result of an import: values of the builder, by their names in the file. */
export interface Imported {
  readonly inputs: ReadonlyMap<string, Value>;
  readonly outputs: ReadonlyMap<string, Value>;
  /** Outputs that need an unsupported part of the file, with the error of that part. */
  readonly leftOut: ReadonlyMap<string, LockstepError>;
  /** Any value of the model's own graph. Throws the error of the part that should provide it. */
  find(name: string): Value | undefined;
}

/** Adds all of a model to a graph under construction. */
export function importInto(
  builder: GraphBuilder,
  file: OnnxFile,
  sink: ImportSink,
  options: ImportIntoOptions = {},
): Imported {
  checkOpset(file);
  const { trainable } = options;
  const plan = trainable === undefined ? undefined : (options.plan ?? planWeights(file));
  if (plan !== undefined && trainable !== undefined) checkLost(file, plan, trainable);
  const graph = plan?.graph ?? file.model.graph;
  const scope = new Scope({ file, opsets: file.model.opsetImport });
  const wanted = chooser(trainable);
  const statistics = statisticNames(graph, options.trainStatistics === true);
  const states = new Map<Value, ImportedState>();
  const inputs = new Map<string, Value>();
  const importer: Importer = new Importer(builder, file, {
    reserved: options.reserved ?? [],
    batch: options.batch,
    node: (node) => {
      if (node.op === "ScatterND") return scattering(node);
      if (node.op === "lockstep::Detach" && options.mode !== "train") return [node.inputs[0]];
      const drawn = sink.draw && drawing(node, node.inputs[0], sink.draw, inputs.values());
      if (drawn !== undefined) return [drawn];
      if (node.op === "Dropout") return dropout(importer, node, sink, options);
      return node.op === "BatchNormalization"
        ? normalization(importer, node, states, options)
        : undefined;
    },
  });
  const weights = new Map(graph.initializer.map((raw) => [raw.name, raw]));
  for (const info of graph.input) {
    if (weights.has(info.name)) continue;
    const type = attempt(scope, info.name, () => bindType(info, options, file.name));
    if (type === undefined) continue;
    const value = sink.input(info.name, type);
    inputs.set(info.name, value);
    scope.define(info.name, value);
  }
  for (const [name, raw] of weights) {
    const tensor = attempt(scope, name, () => file.tensor(raw));
    if (tensor === undefined) continue;
    const state = statistics.has(name) ? sink.state?.(name, tensor) : undefined;
    if (state !== undefined) {
      states.set(state.value, state);
      scope.define(name, state.value);
      continue;
    }
    const weight = plan?.weights.get(name);
    const trained = weight !== undefined && wanted(weight, tensor);
    scope.define(
      name,
      trained ? sink.parameter(name, tensor, weight) : importer.weight(name, tensor),
    );
  }
  importer.graph({ ...graph, initializer: [] }, scope);
  const find = (name: string) => {
    const value = scope.find(name);
    return value && importer.tensor(value, `"${name}"`);
  };
  return { inputs, ...outputsOf(file, importer, scope), find };
}

/** The error of something unsupported concerns only those who need it. */
function attempt<T>(scope: Scope, name: string, body: () => T): T | undefined {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof LockstepError) || error.code !== "ONNX_UNSUPPORTED") throw error;
    scope.fail(name, error);
    return undefined;
  }
}

function outputsOf(
  file: OnnxFile,
  importer: Importer,
  scope: Scope,
): Pick<Imported, "outputs" | "leftOut"> {
  const outputs = new Map<string, Value>();
  const leftOut = new Map<string, LockstepError>();
  for (const { name } of file.model.graph.output) {
    try {
      const value = scope.find(name);
      if (value === undefined) {
        throw new LockstepError(
          "ONNX_PARSE",
          `${file.name}: no node computes the output "${name}".`,
          {
            fields: { file: file.name },
          },
        );
      }
      outputs.set(name, importer.tensor(value, `output "${name}"`));
    } catch (error) {
      if (!(error instanceof LockstepError) || error.code === "ONNX_PARSE") throw error;
      leftOut.set(name, error);
    }
  }
  return { outputs, leftOut };
}

export interface ImportedGraph {
  readonly graph: Graph;
  /** The initial values of the inputs that are trained weights. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly leftOut: Imported["leftOut"];
}

/**
 * The forward graph of a model, with inputs, outputs and weights named as in the file.
 * @param options.partial whether unsupported outputs are omitted, as long as there are others
 * @throws UNKNOWN_OPERATOR, ONNX_UNSUPPORTED, INVALID_OPTION (dims without a size), SHAPE_MISMATCH,
 * TYPE_MISMATCH
 */
export function importGraph(
  file: OnnxFile,
  options: ImportOptions & { readonly partial?: boolean } = {},
): ImportedGraph {
  checkOptions("importGraph", options, IMPORT_OPTIONS);
  const { name } = file.model.graph;
  const builder = newBuilder(name === "" ? "model" : name);
  const parameters = new Map<string, Tensor>();
  const sink: ImportSink = {
    input: (input, type) => builder.input(input, type),
    parameter: (weight, initial) => {
      parameters.set(weight, initial);
      return builder.input(weight, { dtype: initial.dtype, shape: initial.shape });
    },
  };
  const imported = importInto(builder, file, sink, options);
  const { leftOut } = imported;
  const [reason] = leftOut.values();
  const isWhole = options.partial !== true || imported.outputs.size === 0;
  if (reason !== undefined && isWhole) throw reason;
  const taken = new Set<Value>();
  const outputs = [...imported.outputs].map(([output, value]) => {
    const own = value.name === output || builder.has(output);
    if (own && !taken.has(value)) {
      taken.add(value);
      return value;
    }
    return builder.append("Identity", `${output}/Identity`, [value], {}, [output])[0] as Value;
  });
  return { graph: builder.build(outputs), parameters, leftOut };
}

/**
 * A ScatterND with a reduction is composed of ScatterElements, because it loses updates in ONNX
 * Runtime on several threads.
 */
function scattering({ inputs, attributes }: ImportNode): readonly Value[] | undefined {
  const reduction = attributes["reduction"]?.value ?? "none";
  const [x, indices, updates] = inputs;
  if (reduction === "none" || x === undefined) return undefined;
  return [scatterND(x, indices as Value, updates as Value, reduction as Reduction)];
}

/** Imports a dropout that is active in the file; inactive ones were removed before. */
function dropout(
  importer: Importer,
  node: ImportNode,
  sink: ImportSink,
  { mode = "eval" }: ImportIntoOptions,
): readonly Value[] | undefined {
  const x = node.inputs[0];
  const ratio = node.inputs[1] && importer.numbers(node.inputs[1]);
  // The mask (output 1) is not provided: a node that reads it is refused.
  if (x === undefined) return undefined;
  if (mode === "eval") return [x];
  return sink.dropout === undefined ? undefined : [sink.dropout(x, ratio?.[0] ?? 0.5)];
}

/**
 * Imports a normalization whose running mean and variance are states that a training step replaces.
 */
function normalization(
  importer: Importer,
  node: ImportNode,
  states: ReadonlyMap<Value, ImportedState>,
  options: ImportIntoOptions,
): readonly (Value | undefined)[] | undefined {
  const exported = node.attributes["training_mode"]?.value === 1;
  if (!exported && options.trainStatistics !== true) return undefined;
  const { training_mode: _, ...attributes } = node.attributes;
  const [base = node.name] = node.outputs;
  if (options.mode !== "train") return importer.add({ ...node, attributes, outputs: [base] });
  const updated = node.inputs.slice(3).map((value) => value && states.get(value));
  if (updated.length < 2 || updated.includes(undefined)) {
    importer.fail(
      "its running statistics are not weights of the model",
      "Export the model in evaluation mode.",
    );
  }
  const results = importer.add({
    ...node,
    attributes: { ...attributes, training_mode: { kind: "int", value: 1 } },
    outputs: [base, `${base}.mean`, `${base}.variance`],
  });
  const [mean, variance] = updated;
  mean?.update(results[1] as Value);
  const next = results[2] as Value;
  const momentum = Number(attributes["momentum"]?.value ?? 0.9);
  const isTorch = importer.file.model.producerName === "pytorch";
  const count = elementCount(node.inputs[0]?.shape ?? []) / Math.max(1, next.shape[0] ?? 1);
  variance?.update(isTorch ? unbiased(variance.value, next, momentum, count) : next);
  return results;
}

/**
 * The running variance in PyTorch's form: the sum of squares of the batch is divided by the number
 * of values less one, whereas ONNX divides by the number.
 */
function unbiased(old: Value, next: Value, momentum: number, count: number): Value {
  const kept = mul(old, momentum);
  return add(kept, mul(sub(next, kept), count / Math.max(1, count - 1)));
}
