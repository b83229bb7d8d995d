/** A file → a typed, static graph. Weights to be trained become inputs; all others stay constants. */
import { LockstepError } from "../../errors.ts";
import type { Graph, GraphBuilder, Value } from "../../graph/index.ts";
import { newBuilder } from "../../ops/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import type { OnnxFile } from "../read.ts";
import type { ImportNode } from "../upgrade/index.ts";
import { bindType, type DimOptions } from "./dims.ts";
import { checkOpset, Importer } from "./importer.ts";
import { Scope } from "./scope.ts";
import { isUniform, isWeight, settingNames } from "./trainable.ts";

export interface ImportOptions extends DimOptions {
  /** Weights that become inputs of the graph: by name. None unless told; `true` means all that are weights. */
  readonly trainable?: true | RegExp | ((name: string, tensor: Tensor) => boolean);
}

export interface Parameter {
  readonly value: Value;
  readonly initial: Tensor;
}

/** A statistic that a training step replaces. */
export interface State extends Parameter {
  readonly next: Value;
}

export interface ImportIntoOptions extends ImportOptions {
  /** How running statistics of normalization are treated; `infer` uses them as they are. */
  readonly mode?: "train" | "infer";
  /** Values for inputs of the model, by name; the others become inputs of the graph. */
  readonly inputs?: Readonly<Record<string, Value>>;
}

/** What an imported model gives: values of the builder, by their names in the file. */
export interface Imported {
  readonly inputs: ReadonlyMap<string, Value>;
  readonly outputs: ReadonlyMap<string, Value>;
  readonly parameters: ReadonlyMap<string, Parameter>;
  readonly states: ReadonlyMap<string, State>;
  /** Any value of the model's own graph. */
  find(name: string): Value | undefined;
}

/** Adds all of a model to a graph under construction. */
export function importInto(
  builder: GraphBuilder,
  file: OnnxFile,
  options: ImportIntoOptions = {},
): Imported {
  checkOpset(file);
  const { graph } = file.model;
  const scope = new Scope({ file, opsets: file.model.opsetImport });
  const settings = settingNames(graph);
  const parameters = new Map<string, Parameter>();
  const states = new Map<string, State>();
  const wanted = chooser(options.trainable);
  const parameter = (name: string, tensor: Tensor): Value => {
    const value = builder.input(name, { dtype: tensor.dtype, shape: tensor.shape });
    parameters.set(name, { value, initial: tensor });
    return value;
  };
  const importer = new Importer(builder, file, {
    alias: (value, name) => {
      const shared = parameters.get(value.name);
      // A second name of a weight: see `isUniform`.
      if (shared === undefined || name === value.name || !isUniform(shared.initial)) return value;
      return wanted(name, shared.initial) ? parameter(name, shared.initial) : value;
    },
    node: (node) => {
      if (!isTraining(node)) return undefined;
      const inferring = { ...node, attributes: without(node, "training_mode") };
      if (options.mode !== "train") {
        return importer.build({ ...inferring, outputs: node.outputs.slice(0, 1) });
      }
      return trainingNormalization(importer, node, states);
    },
  });
  const weights = new Map(graph.initializer.map((raw) => [raw.name, raw]));
  const inputs = new Map<string, Value>();
  for (const info of graph.input) {
    if (weights.has(info.name)) continue;
    const type = bindType(info, options, file.name);
    const value = options.inputs?.[info.name] ?? builder.input(info.name, type);
    inputs.set(info.name, value);
    scope.define(info.name, value);
  }
  for (const [name, raw] of weights) {
    const tensor = file.tensor(raw);
    const trained = !settings.has(name) && isWeight(tensor) && wanted(name, tensor);
    scope.define(name, trained ? parameter(name, tensor) : importer.weight(name, tensor));
  }
  importer.graph(graph, scope);
  const outputs = new Map<string, Value>();
  for (const { name } of graph.output) {
    const value = scope.find(name);
    if (value === undefined) {
      throw new LockstepError("ONNX_PARSE", `${file.name}: nothing gives the output "${name}".`, {
        fields: { file: file.name },
      });
    }
    outputs.set(name, value);
  }
  return { inputs, outputs, parameters, states, find: (name) => scope.find(name) };
}

export interface ImportedGraph {
  readonly graph: Graph;
  /** Initial values of the inputs that are weights to be trained. */
  readonly parameters: ReadonlyMap<string, Tensor>;
}

/**
 * The forward graph of a model, with inputs, outputs and weights named as in the file.
 * @throws UNKNOWN_OPERATOR, ONNX_UNSUPPORTED, INVALID_OPTION (dims without a size), SHAPE_MISMATCH, TYPE_MISMATCH
 */
export function importGraph(file: OnnxFile, options: ImportOptions = {}): ImportedGraph {
  const name = file.model.graph.name;
  const builder = newBuilder(name === "" ? "model" : name);
  const imported = importInto(builder, file, options);
  const outputs = [...imported.outputs].map(([output, value]) =>
    value.name === output || builder.has(output)
      ? value
      : (builder.append("Identity", `${output}/Identity`, [value], {}, [output])[0] as Value),
  );
  return {
    graph: builder.build(outputs),
    parameters: new Map([...imported.parameters].map(([key, { initial }]) => [key, initial])),
  };
}

function chooser(trainable: ImportOptions["trainable"]): (name: string, of: Tensor) => boolean {
  if (trainable === undefined) return () => false;
  if (trainable === true) return () => true;
  if (typeof trainable === "function") return trainable;
  return (name) => name.search(trainable) >= 0;
}

function isTraining(node: ImportNode): boolean {
  return node.op === "BatchNormalization" && node.attributes["training_mode"]?.value === 1;
}

function without(node: ImportNode, name: string): ImportNode["attributes"] {
  return Object.fromEntries(Object.entries(node.attributes).filter(([key]) => key !== name));
}

/** The running mean and variance become states, replaced in every step. */
function trainingNormalization(
  importer: Importer,
  node: ImportNode,
  states: Map<string, State>,
): readonly (Value | undefined)[] {
  const { builder } = importer;
  const statistics = [node.inputs[3], node.inputs[4]].map((value) => {
    const initial = value && builder.constantOf(value);
    if (value === undefined || initial === undefined) {
      throw new LockstepError(
        "ONNX_UNSUPPORTED",
        `${importer.file.name}: node "${node.name}" (BatchNormalization): its running statistics are not weights.`,
        { fields: { file: importer.file.name, node: node.name } },
      );
    }
    const name = `${value.name}.state`;
    return { name: value.name, initial, value: builder.input(name, value.type) };
  });
  const definition = importer.builder.operators.find(node.op);
  if (definition === undefined) return importer.build(node);
  const base = node.outputs[0] ?? node.name;
  const results = builder.append(
    node.op,
    node.name,
    [...node.inputs.slice(0, 3), ...statistics.map(({ value }) => value)],
    node.attributes,
    [base, `${base}.mean`, `${base}.variance`],
  );
  for (const [index, { name, initial, value }] of statistics.entries()) {
    states.set(name, { value, initial, next: results[index + 1] as Value });
  }
  return results;
}
