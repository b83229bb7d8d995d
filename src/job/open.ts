/**
 * Opens a job as a run that trains: its model returns the job's graphs, and every part of the job
 * is checked before it is used.
 */
import { type DataSource, sourceOf } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import type { Initializer, Model, ModelDefinition, ModelDevices, StoredForm } from "../nn/index.ts";
import { decodeGraph } from "../onnx/index.ts";
import { optimizerOf, type Schedule, scheduleOf } from "../optimizer/index.ts";
import { defineRun, type Fingerprint, type Run, type RunOptions } from "../run/index.ts";
import { parseSafetensors } from "../safetensors/index.ts";
import { formatType, isFloat, type Tensor } from "../tensor/index.ts";
import type { JobFolder } from "./folder.ts";
import { baseIn, checkPlaces, type Places } from "./places.ts";
import { fromPlain, type Plain } from "./plain.ts";
import { replayModel, textOf } from "./record.ts";
import {
  type JobBuild,
  type JobForm,
  type JobHead,
  type JobInitial,
  VALUES_FILE,
} from "./schema.ts";

export interface OpenedJob {
  readonly run: Run;
  readonly holds: Fingerprint | undefined;
  /**
   * The folder that the data's places start from, below the first root that contains all of them.
   */
  baseIn(roots: readonly string[]): string;
  /**
   * Reads every graph, so that one that does not fit is found before anything starts. Throws the
   * errors of `openJob`.
   */
  check(): void;
}

/**
 * Throws JOB for parts that do not fit each other, DATA_PLACE for a place outside of all roots, and
 * INVALID_OPTION for options that no run file could have. Graphs are read when they are asked for.
 */
export function openJob(folder: Pick<JobFolder, "head" | "bytes">): OpenedJob {
  const { head } = folder;
  const values = valuesOf(folder);
  const { folder: from, source, holds } = head.data;
  const places: Places = { folder: from, source: openSource(source, values) };
  checkPlaces(places);
  const model = openModel(folder, values);
  const run = defineRun({
    ...(optionsOf(head) as RunOptions),
    name: head.name,
    model,
    data: places.source,
    optimizer: optimizerOf(
      head.optimizer.kind,
      fromPlain(head.optimizer.options, "optimizer.options") as object,
    ),
  });
  return {
    run,
    holds: holds && { data: holds.data, ...(holds.tokenizer && { tokenizer: holds.tokenizer }) },
    baseIn: (roots) => baseIn(places, roots),
    check: () => {
      for (const { batch, mode, exported } of head.model.builds) {
        attempt(() => model.build({ batch, mode, exported }), head);
      }
    },
  };
}

/** Reads a build for `check`. A build that was recorded as a failure needs no reading. */
function attempt(build: () => Model, { model }: JobHead): void {
  try {
    build();
  } catch (error) {
    const isRecorded =
      error instanceof LockstepError &&
      model.builds.some((own) => "fails" in own && own.fails.code === error.code);
    if (!isRecorded) throw error;
  }
}

function optionsOf({ run }: JobHead): Partial<RunOptions> {
  const { schedule, ...numbers } = run;
  if (schedule === undefined) return numbers as Partial<RunOptions>;
  return {
    ...numbers,
    schedule: scheduleOf(fromPlain(schedule, "schedule") as Schedule),
  } as Partial<RunOptions>;
}

type Values = ReadonlyMap<string, Tensor>;

function valuesOf({ head, bytes }: Pick<JobFolder, "head" | "bytes">): Values {
  if (!Object.hasOwn(head.files, VALUES_FILE)) return new Map();
  return parseSafetensors(bytes(VALUES_FILE), VALUES_FILE).tensors;
}

function valueIn(values: Values, name: unknown): Tensor {
  const found = values.get(String(name));
  if (found !== undefined) return found;
  throw faulty(`${VALUES_FILE} has no "${String(name).slice(0, 200)}"`);
}

function openSource({ kind, ...rest }: JobHead["data"]["source"], values: Values): DataSource {
  const options = fromPlain(rest as Plain, "data.source") as Record<string, unknown>;
  if (kind !== "arrays") return sourceOf(kind, options);
  const named = Object.entries(options["arrays"] ?? {});
  const arrays = Object.fromEntries(named.map(([field, name]) => [field, valueIn(values, name)]));
  return sourceOf(kind, { ...options, arrays });
}

function openModel(folder: Pick<JobFolder, "head" | "bytes">, values: Values): ModelDefinition {
  const { model } = folder.head;
  const builds = new Map(model.builds.map((build) => [textOf(build), build]));
  return replayModel(model.name, new Set(builds.keys()), (asked) => {
    const build = builds.get(textOf(asked)) as JobBuild;
    if ("fails" in build) {
      const { code, message, hint } = build.fails;
      throw new LockstepError(code, message, hint === undefined ? {} : { hint });
    }
    return openBuild(folder, build, values);
  });
}

function openBuild(
  { head, bytes }: Pick<JobFolder, "head" | "bytes">,
  build: Extract<JobBuild, { readonly graph: string }>,
  values: Values,
): Omit<Model, "resized"> {
  const { name, trains } = head.model;
  const form = head.model.forms[build.form];
  if (form === undefined) throw faulty(`"${build.graph}" has no form ${build.form}`);
  const places = placesOf(head, bytes, values);
  const graph = decodeGraph(bytes(build.graph), {
    name: build.graph,
    shared: ({ file, offset }, byteLength) => {
      const found = file === VALUES_FILE ? places.get(offset) : undefined;
      if (found?.byteLength === byteLength) return found;
      throw faulty(
        `"${build.graph}" asks for ${byteLength} bytes at ${offset} of "${file.slice(0, 100)}"`,
      );
    },
  });
  const model = {
    name,
    graph,
    batch: form.batch,
    parameters: form.parameters.map(({ name: own, initial, decay, stored }) => ({
      name: own,
      type: typeIn(graph, own, build),
      initializer: initializerOf(initial, values),
      decay,
      ...(stored === undefined ? {} : { stored: stored as StoredForm }),
    })),
    states: form.states.map(({ name: own, initial, next }) => ({
      name: own,
      next,
      type: typeIn(graph, own, build),
      initializer: initializerOf(initial, values),
    })),
    randomKey: form.randomKey,
    expectations: form.expectations,
    loss: form.loss,
    outputs: form.outputs,
    notes: form.notes,
    ...(trains === undefined ? {} : { trains }),
    ...(form.devices === undefined ? {} : { devices: form.devices as ModelDevices }),
  };
  checkFit(model, form, build);
  return model;
}

const offsets = new WeakMap<JobHead, ReadonlyMap<number, Uint8Array>>();

/** The bytes of each value, by their offset in the file. */
function placesOf(
  head: JobHead,
  bytes: JobFolder["bytes"],
  values: Values,
): ReadonlyMap<number, Uint8Array> {
  const known = offsets.get(head);
  if (known !== undefined || values.size === 0) return known ?? new Map();
  const start = bytes(VALUES_FILE).byteOffset;
  const all = new Map(
    [...values.values()].map((tensor) => [tensor.bytes.byteOffset - start, tensor.bytes]),
  );
  offsets.set(head, all);
  return all;
}

function initializerOf(initial: JobInitial, values: Values): Initializer {
  if (initial.kind === "tensor") return { kind: "tensor", tensor: valueIn(values, initial.tensor) };
  if (initial.kind !== "normal") return initial;
  const { mean, ...rest } = initial;
  return { ...rest, ...(mean === undefined ? {} : { mean }) };
}

type Built = Omit<Model, "resized">;

function typeIn(graph: Built["graph"], name: string, { graph: file }: { readonly graph: string }) {
  if (graph.inputs.includes(name)) return typeOf(graph, name);
  throw faulty(`the graph "${file}" has no input "${name}"`);
}

/**
 * Checks that a graph fits what `job.json` says of the model: names, types and sizes. Throws JOB.
 */
function checkFit(
  model: Built,
  form: JobForm,
  build: Extract<JobBuild, { readonly graph: string }>,
): void {
  const { graph, batch, parameters, states, randomKey, loss, outputs } = model;
  const where = `the graph "${build.graph}"`;
  for (const { name, type } of [...form.parameters, ...form.states]) {
    const found = formatType(typeIn(graph, name, build));
    if (found !== type)
      throw faulty(`${where} has "${name}" as ${found}, but the job has it as ${type}`);
  }
  for (const { name, type, initializer } of [...parameters, ...states]) {
    if (initializer.kind !== "tensor" || formatType(initializer.tensor) === formatType(type))
      continue;
    const found = formatType(initializer.tensor);
    throw faulty(`the first value of "${name}" is ${found}, but ${where} has ${formatType(type)}`);
  }
  for (const name of [...batch, ...(randomKey === undefined ? [] : [randomKey])]) {
    const { shape } = typeIn(graph, name, build);
    if (shape[0] !== build.batch && build.mode === "train") {
      throw faulty(
        `${where} is not of ${build.batch} samples: "${name}" has ${shape[0] ?? "no dim"}`,
      );
    }
  }
  const named = [
    ...batch,
    ...parameters.map(nameOf),
    ...states.map(nameOf),
    ...(randomKey === undefined ? [] : [randomKey]),
  ];
  const unknown = graph.inputs.find((name) => !named.includes(name));
  if (unknown !== undefined || new Set(named).size < named.length) {
    throw faulty(
      `${where} has an input "${unknown ?? ""}" that the job does not name, or has it twice`,
    );
  }
  for (const name of [loss, ...Object.values(outputs), ...states.map(({ next }) => next)]) {
    if (!graph.outputs.includes(name)) throw faulty(`${where} has no output "${name}"`);
  }
  for (const { name, next, type } of states) {
    const found = formatType(typeOf(graph, next));
    if (found !== formatType(type)) throw faulty(`${where} makes ${found} of the state "${name}"`);
  }
  const { dtype, shape } = typeOf(graph, loss);
  if (shape.length > 0 || !isFloat(dtype))
    throw faulty(`${where} has a loss that is not one float`);
}

function nameOf({ name }: { readonly name: string }): string {
  return name;
}

function faulty(what: string): LockstepError {
  return new LockstepError("JOB", `The parts of the job do not fit: ${what}.`, {
    hint: "Make the job again from its run file.",
  });
}
