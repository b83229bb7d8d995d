/** A file → its messages, faithfully: nothing is upgraded, folded or checked beyond the format. */
import path from "node:path";
import { LockstepError } from "../errors.ts";
import type { Tensor } from "../tensor/index.ts";
import { readRange } from "./files.ts";
import { modelTable, type RawGraph, type RawModel, type RawTensor } from "./schema.ts";
import { decodeTensor } from "./tensor.ts";
import { decodeMessage, MAX_MESSAGE_BYTES } from "./wire.ts";

/** A model as it stands in its file. */
export interface OnnxFile {
  /** For messages. */
  readonly name: string;
  readonly model: RawModel & { readonly graph: RawGraph };
  /** The tensor's elements; weights in the file are views, those in other files are read now. */
  tensor(raw: RawTensor): Tensor;
}

/** Reads an `.onnx` file. Throws FILE_NOT_FOUND, FILE_CORRUPT, ONNX_PARSE. */
export function readModel(file: string): OnnxFile {
  const bytes = readRange(file);
  return decodeModel(bytes, { name: file, folder: path.dirname(file) });
}

export interface DecodeOptions {
  /** For messages: usually the path. */
  readonly name?: string;
  /** Where files of external data lie; without it a model that has some is refused. */
  readonly folder?: string;
}

/** Decodes the bytes of an `.onnx` file. The bytes must not change afterwards: weights are views. */
export function decodeModel(bytes: Uint8Array, options: DecodeOptions = {}): OnnxFile {
  const name = options.name ?? "model";
  const wrong = (reason: string): never => {
    throw new LockstepError("ONNX_PARSE", `${name} is not a valid ONNX file: ${reason}.`, {
      hint: "The file may be cut short, or be of another format.",
      fields: { file: name },
    });
  };
  if (bytes.byteLength === 0) wrong("it is empty");
  if (bytes.byteLength > MAX_MESSAGE_BYTES) wrong("it is larger than one ONNX message can be");
  const model = decodeMessage(modelTable, bytes, name);
  const { graph } = model;
  if (graph === undefined) return wrong("it has no graph");
  if (!model.opsetImport.some(({ domain }) => domain === "" || domain === "ai.onnx")) {
    if (graph.node.length > 0 && model.opsetImport.length === 0)
      wrong("it imports no operator set");
  }
  const { folder } = options;
  return {
    name,
    model: { ...model, graph },
    tensor: (raw) =>
      decodeTensor(raw, `${name}: tensor "${raw.name}"`, (tensor, byteLength) =>
        folder === undefined
          ? wrong(`tensor "${tensor.name}" lies in another file`)
          : readExternal(tensor, byteLength, folder, name),
      ),
  };
}

/** Data beside the model: `location` (a relative path that stays in the folder), `offset`, `length`. */
function readExternal(
  raw: RawTensor,
  byteLength: number,
  folder: string,
  model: string,
): Uint8Array {
  const entries = new Map(raw.externalData.map(({ key, value }) => [key, value]));
  const what = `${model}: external data of tensor "${raw.name}"`;
  const number = (key: string, otherwise: number): number => {
    const text = entries.get(key);
    if (text === undefined || text === "") return otherwise;
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new LockstepError("ONNX_PARSE", `${what}: ${key} is "${text}".`);
  };
  const location = entries.get("location") ?? "";
  const file = path.resolve(folder, location);
  const inside = path.relative(folder, file);
  if (location === "" || path.isAbsolute(location) || inside.startsWith("..") || inside === "") {
    throw new LockstepError(
      "ONNX_PARSE",
      `${what}: "${location}" does not name a file beside the model.`,
      { hint: "External data must lie in the folder of the model or below it." },
    );
  }
  const length = number("length", byteLength);
  if (length !== byteLength) {
    throw new LockstepError(
      "ONNX_PARSE",
      `${what}: its shape needs ${byteLength} bytes, length is ${length}.`,
    );
  }
  return readRange(file, number("offset", 0), length);
}
