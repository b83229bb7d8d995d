/**
 * Makes the job of a run: what a run file made with code becomes data. This is the only place where
 * a run's model is asked to build.
 */
import { createHash } from "node:crypto";
import { LockstepError } from "../errors.ts";
import { addToHash } from "../files/index.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import type { Initializer, Model } from "../nn/index.ts";
import { encodeGraph, MIN_SHARED_BYTES } from "../onnx/index.ts";
import { version } from "../package.ts";
import { defineRun, type Run, rehearse, settleMicroBatches } from "../run/index.ts";
import { encodeSafetensors } from "../safetensors/index.ts";
import { formatType, type Tensor } from "../tensor/index.ts";
import { sealHead } from "./head.ts";
import { placesBelow } from "./places.ts";
import { toPlain } from "./plain.ts";
import { type RecordedBuild, recordModel, textOf } from "./record.ts";
import {
  JOB_FILE,
  JOB_FORMAT,
  type JobBuild,
  type JobForm,
  type JobHead,
  type JobInitial,
  VALUES_FILE,
} from "./schema.ts";

export interface MakeOptions {
  /** The folder that relative paths and globs of the run's data start from. */
  readonly baseDir: string;
  /** The folder that all data must lie below; the job's places start from it. */
  readonly root: string;
  /** Whether a job may be made if its data is not on this machine. */
  readonly mayLackData?: boolean;
  readonly signal: AbortSignal;
}

/** The files of a job by name, each in pieces, one after the other. */
export type JobFiles = ReadonlyMap<string, readonly Uint8Array[]>;

export interface MadeJob {
  readonly head: JobHead;
  readonly files: JobFiles;
}

/**
 * Throws NOT_DATA for a run of which a part cannot be written as data, DATA_PLACE for data outside
 * of the root, and the errors of planning the run and opening its data.
 */
export async function makeJob(given: Run, options: MakeOptions): Promise<MadeJob> {
  const recording = recordModel(given.model);
  const asked = defineRun({ ...given.stated, model: recording.definition });
  const run = settleMicroBatches(asked);
  const { baseDir, root, mayLackData = false, signal } = options;
  const places = placesBelow(run.data, baseDir, root);
  recording.begin();
  const { holds } = await rehearse(run, { baseDir, mayLackData, signal });
  const values = new Values();
  const model = modelOf(run.model.name, recording.builds(), values);
  const source = sourceOf(places.source, values);
  const { pieces, offsets } = encodeSafetensors(values.tensors);
  const files = new Map<string, readonly Uint8Array[]>();
  for (const [file, graph] of model.graphs) {
    const placeOf = (tensor: Tensor) => {
      return { file: VALUES_FILE, offset: offsets.get(values.nameOf(tensor)) ?? 0 };
    };
    files.set(file, [encodeGraph(graph, placeOf)]);
  }
  if (values.tensors.size > 0) files.set(VALUES_FILE, [...pieces]);
  const sealed = sealHead({
    lockstep: "job",
    format: JOB_FORMAT,
    version: version(),
    name: run.name,
    run: runOf(run),
    optimizer: {
      kind: run.optimizer.kind,
      options: toPlain(run.optimizer.options, "optimizer.options") as JobHead["run"]["schedule"] &
        object,
    },
    data: { folder: places.folder, source, ...(holds === undefined ? {} : { holds }) },
    model: model.said,
    files: Object.fromEntries([...files].map(([name, content]) => [name, digestOf(content)])),
  });
  return { head: sealed.head, files: new Map([[JOB_FILE, [sealed.bytes]], ...files]) };
}

function runOf({ stated, microBatches, seed, schedule }: Run): JobHead["run"] {
  const { model: _, data: __, optimizer: ___, name: ____, ...numbers } = stated;
  const plain = toPlain({ ...numbers, microBatches, seed }, "the run") as JobHead["run"];
  return schedule === undefined
    ? plain
    : { ...plain, schedule: toPlain(schedule, "schedule") as JobHead["run"]["schedule"] };
}

function sourceOf(source: Run["data"], values: Values): JobHead["data"]["source"] {
  if (source.kind !== "arrays") return toPlain(source, "data") as { kind: string };
  const { arrays, ...options } = source;
  const named = Object.entries(arrays).map(([field, tensor]) => [
    field,
    values.add(`data/${field}`, tensor),
  ]);
  const plain = toPlain(options, "data") as { kind: string };
  return { ...plain, arrays: Object.fromEntries(named) as Record<string, string> };
}

/** The tensors that the files of a job share. Each is stored once, however many graphs use it. */
class Values {
  readonly tensors = new Map<string, Tensor>();
  readonly #names = new Map<string, string>();
  readonly #digests = new WeakMap<Tensor, string>();

  /** Returns the name of the tensor. If an equal tensor was added before, that is its name. */
  add(name: string, tensor: Tensor): string {
    const digest = this.#digestOf(tensor);
    const known = this.#names.get(digest);
    if (known !== undefined) return known;
    this.#names.set(digest, name);
    this.tensors.set(name, tensor);
    return name;
  }

  addConstant(tensor: Tensor): void {
    this.add(`constant/${this.#digestOf(tensor).slice(0, 16)}`, tensor);
  }

  nameOf(tensor: Tensor): string {
    return this.#names.get(this.#digestOf(tensor)) ?? "";
  }

  #digestOf(tensor: Tensor): string {
    const known = this.#digests.get(tensor);
    if (known !== undefined) return known;
    const hash = createHash("sha256").update(formatType(tensor));
    addToHash(hash, tensor.bytes);
    const digest = hash.digest("hex");
    this.#digests.set(tensor, digest);
    return digest;
  }
}

interface ModelParts {
  readonly said: JobHead["model"];
  readonly graphs: ReadonlyMap<string, Graph>;
}

function modelOf(name: string, recorded: readonly RecordedBuild[], values: Values): ModelParts {
  const forms: JobForm[] = [];
  const texts: string[] = [];
  const graphs = new Map<string, Graph>();
  let trains: string | undefined;
  const builds = recorded.map(({ asked, result }): JobBuild => {
    if (result instanceof LockstepError) return { ...asked, fails: failureOf(result) };
    const file = `${textOf(asked)}.onnx`;
    for (const tensor of result.graph.constants.values()) {
      if (tensor.bytes.byteLength >= MIN_SHARED_BYTES) values.addConstant(tensor);
    }
    graphs.set(file, result.graph);
    trains ??= result.trains;
    const form = formOf(result, values);
    const text = JSON.stringify(form);
    if (!texts.includes(text)) {
      texts.push(text);
      forms.push(form);
    }
    return { ...asked, graph: file, form: texts.indexOf(text) };
  });
  return { said: { name, ...(trains === undefined ? {} : { trains }), forms, builds }, graphs };
}

function failureOf({ code, message, hint }: LockstepError) {
  if (hint === undefined) return { code, message };
  return { code, message: message.slice(0, -`\n  ${hint}`.length), hint };
}

function formOf(model: Model, values: Values): JobForm {
  const { graph, batch, randomKey, expectations, loss, outputs, notes, devices } = model;
  const weight = ({ name, initializer }: { name: string; initializer: Initializer }) => ({
    name,
    type: formatType(typeOf(graph, name)),
    initial: initialOf(name, initializer, values),
  });
  return {
    batch: [...batch],
    parameters: model.parameters.map(({ decay, stored, ...own }) => ({
      ...weight(own),
      decay,
      ...(stored === undefined ? {} : { stored: toPlain(stored, own.name) as object }),
    })),
    states: model.states.map(({ next, ...own }) => ({ ...weight(own), next })),
    ...(randomKey === undefined ? {} : { randomKey }),
    expectations: expectations.map(({ value, range }) => ({
      value,
      range: { ...range, except: [...range.except] },
    })),
    loss,
    outputs: { ...outputs },
    notes: [...notes],
    ...(devices === undefined
      ? {}
      : { devices: toPlain(devices, "devices") as JobForm["devices"] }),
  };
}

function initialOf(name: string, initializer: Initializer, values: Values): JobInitial {
  if (initializer.kind !== "tensor") return toPlain(initializer, name) as JobInitial;
  return { kind: "tensor", tensor: values.add(`initial/${name}`, initializer.tensor) };
}

function digestOf(pieces: readonly Uint8Array[]): { bytes: number; sha256: string } {
  const hash = createHash("sha256");
  let bytes = 0;
  for (const piece of pieces) {
    addToHash(hash, piece);
    bytes += piece.byteLength;
  }
  return { bytes, sha256: hash.digest("hex") };
}
