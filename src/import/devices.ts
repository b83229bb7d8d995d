/**
 * What a file says of how devices share its model, in the names of the model that is made of it:
 * pipeline stages, and how parameters are cut. What cannot be followed is said.
 */
import { LockstepError } from "../errors.ts";
import type {
  DeviceConfiguration,
  ModelDefinition,
  ModelDevices,
  ParameterCut,
} from "../nn/index.ts";
import {
  cutOf,
  devicesOf,
  type FileConfiguration,
  type NodeOnDevices,
  type OnnxFile,
  type RawGraph,
  readModel,
  type TensorOnDevices,
} from "../onnx/index.ts";
import type { Shape } from "../tensor/index.ts";
import type { Imported } from "./import.ts";
import { list } from "./weights.ts";

/** The model that a file's annotations are about. */
export interface AnnotatedModel {
  /** The shapes of the parameters. */
  readonly parameters: ReadonlyMap<string, Shape>;
  /** What a tensor of an annotated node is in the model; undefined: it is not there any more. */
  valueOf(node: NodeOnDevices, tensor: string): string | undefined;
}

export interface DevicesFound {
  /** Undefined for a file without annotations. */
  readonly devices: ModelDevices | undefined;
  /** What a user should know: what is followed, and what is not. */
  readonly notes: readonly string[];
}

/** @throws ONNX_PARSE, ONNX_UNSUPPORTED: see `devicesOf` */
export function readDevices({ model, name }: OnnxFile, of: AnnotatedModel): DevicesFound {
  const { configurations, nested } = devicesOf(model, name);
  if (configurations.length === 0) return { devices: undefined, notes: [] };
  const found = configurations.map((own) => configurationOf(own, of));
  const notes = found.flatMap((own) => notesOn(name, own));
  if (nested > 0) {
    const s = nested === 1 ? "" : "s";
    notes.push(
      `${name}: the device annotations of ${nested} node${s} of branches, loops or functions are not followed.`,
    );
  }
  const devices = { file: name, configurations: found.map(({ configuration }) => configuration) };
  return { devices, notes };
}

/** A configuration, and what cannot be followed of it. */
interface Found {
  readonly configuration: DeviceConfiguration;
  readonly activations: number;
  readonly gone: number;
  readonly unlike: readonly string[];
  readonly contradicted: readonly string[];
}

function configurationOf(own: FileConfiguration, of: AnnotatedModel): Found {
  const numbers = own.nodes.flatMap(({ stage }) => stage ?? []);
  const stages = [...new Set(numbers)].sort((a, b) => a - b);
  const stageOf: Record<string, number> = {};
  const parameters: Record<string, ParameterCut> = {};
  const activations = new Set<string>();
  const unlike = new Set<string>();
  const contradicted = new Set<string>();
  let gone = 0;
  for (const on of own.nodes) {
    const made = on.node.output.flatMap((name) => {
      return name === "" ? [] : (of.valueOf(on, name) ?? []);
    });
    if (made.length === 0) gone++;
    for (const value of on.stage === undefined ? [] : made) {
      // What passes its input on, as dropout does, is no node of the model: its input has a stage.
      if (!Object.hasOwn(stageOf, value)) stageOf[value] = stages.indexOf(on.stage as number);
    }
    for (const tensor of on.tensors) {
      const value = of.valueOf(on, tensor.tensor);
      const shape = value === undefined ? undefined : of.parameters.get(value);
      if (value === undefined || shape === undefined) {
        if (cutOf(tensor) !== "whole") activations.add(tensor.tensor);
        continue;
      }
      const cut = parameterCut(tensor, shape);
      const known = Object.hasOwn(parameters, value) ? parameters[value] : undefined;
      if (cut === undefined) unlike.add(value);
      else if (known === undefined) parameters[value] = cut;
      else if (JSON.stringify(known) !== JSON.stringify(cut)) contradicted.add(value);
    }
  }
  const { name, devices } = own;
  const configuration = { name, devices, stages: stages.length, stageOf, parameters };
  return {
    configuration,
    activations: activations.size,
    gone,
    unlike: [...unlike],
    contradicted: [...contradicted],
  };
}

function parameterCut(tensor: TensorOnDevices, shape: Shape): ParameterCut | undefined {
  const cut = cutOf(tensor);
  if (cut === "whole") return { parts: 1, dim: 0 };
  const size = cut === undefined ? undefined : shape[cut.dim];
  if (cut === undefined || size === undefined) return undefined;
  const counted = cut.sections?.reduce((sum, own) => sum + own, 0) ?? size;
  return counted === size && size % cut.parts === 0 ? cut : undefined;
}

function notesOn(file: string, found: Found): string[] {
  const { configuration, activations, gone, unlike, contradicted } = found;
  const { name, devices, stages, parameters } = configuration;
  const cuts = Object.values(parameters).filter(({ parts }) => parts > 1);
  const ways = [...new Set(cuts.map(({ parts }) => parts))];
  const said = [
    ...(stages > 0 ? [`${stages} pipeline stage${stages === 1 ? "" : "s"}`] : []),
    ...(cuts.length > 0 ? [`${cuts.length} parameters cut in ${ways.join(" or ")}`] : []),
  ];
  const taken = [
    ...(stages > 1 ? [`parallel: { pipeline: ${stages} }`] : []),
    ...ways.map((parts) => `parallel: { tensor: ${parts} }`),
  ];
  const notes = [
    `${file} says how ${devices} devices share it ("${name}"): ${said.length === 0 ? "nothing that is followed" : said.join(", ")}.` +
      (taken.length === 0 ? "" : ` That is followed with ${taken.join(" or ")}.`) +
      " It is not written to model.onnx.",
  ];
  const not = [
    ...(activations > 0 ? [`how ${activations} other tensors are cut (workers find it)`] : []),
    ...(gone > 0 ? [`what is said of ${gone} nodes that the model does not have`] : []),
    ...(unlike.length > 0 ? [`the way in which ${list(unlike)} would be cut`] : []),
    ...(contradicted.length > 0 ? [`a second way to hold ${list(contradicted)}`] : []),
  ];
  if (not.length > 0) notes.push(`${file}, "${name}": not followed are ${not.join("; ")}.`);
  return notes;
}

/** What is said of devices, as lines for a terminal. */
export function describeDevices({ model, name }: OnnxFile): string[] {
  const { configurations, nested } = devicesOf(model, name);
  const inner = nested === 0 ? "" : `, and ${nested} in branches, loops and functions`;
  return configurations.map(({ name: id, devices, nodes }) => {
    const stages = new Set(nodes.flatMap(({ stage }) => stage ?? [])).size;
    const cut = new Set(
      nodes.flatMap(({ tensors }) =>
        tensors.filter((own) => own.parts.length > 1).map(({ tensor }) => tensor),
      ),
    );
    return `Devices "${id}": ${devices}; ${nodes.length} nodes are annotated${inner}; ${stages} pipeline stages, ${cut.size} tensors in parts`;
  });
}

/** The values of a model that was made of the file, whose weights a plan may have renamed. */
export function importedValues(
  planned: RawGraph,
  imported: Pick<Imported, "find">,
): AnnotatedModel["valueOf"] {
  const nodes = new Map(
    planned.node.flatMap((node) => node.output.map((output) => [output, node] as const)),
  );
  return ({ node }, tensor) => {
    const at = node.output.includes(tensor) ? -1 : node.input.indexOf(tensor);
    const now = nodes.get(node.output.find((name) => name !== "") ?? "");
    const name = at < 0 ? tensor : (now?.input[at] ?? tensor);
    try {
      return imported.find(name)?.name;
    } catch (error) {
      // Part of the file that is not supported, and that nothing needs.
      if (error instanceof LockstepError) return undefined;
      throw error;
    }
  };
}

/**
 * A model that devices share as another file says: one that `lockstep plan RUN --to FILE` has
 * written for this model, and that was edited. Names are those of the model's own graph.
 */
export function withDevices(model: ModelDefinition, file: string): ModelDefinition {
  if (typeof file !== "string" || file === "") {
    throw new LockstepError("INVALID_OPTION", `withDevices needs a path, got ${String(file)}.`, {
      hint: 'withDevices(model, "plan.onnx") follows what `lockstep plan RUN --to plan.onnx` has written.',
    });
  }
  let read: OnnxFile | undefined;
  return {
    name: model.name,
    build: (options) => {
      const built = model.build(options);
      if (options.mode !== "train") return built;
      read ??= readModel(file);
      const { graph } = built;
      const { devices, notes } = readDevices(read, {
        parameters: new Map(built.parameters.map(({ name, type }) => [name, type.shape])),
        valueOf: (_, tensor) => (graph.types.has(tensor) ? tensor : undefined),
      });
      const isOther = devices?.configurations.every(
        ({ stageOf, parameters }) =>
          Object.keys(stageOf).length === 0 && Object.keys(parameters).length === 0,
      );
      if (devices === undefined || isOther === true) {
        throw new LockstepError(
          "INVALID_OPTION",
          `withDevices: ${file} says nothing of how devices share ${model.name}${isOther ? ": its names are those of another model" : ""}.`,
          {
            hint: "`lockstep plan RUN --workers 2 --parallel tensor=2 --to FILE` writes such a file.",
          },
        );
      }
      return { ...built, devices, notes: [...built.notes, ...notes] };
    },
  };
}
