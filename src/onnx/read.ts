/**
 * Reads a file into its messages without changes: nothing is upgraded, folded or checked beyond the
 * format.
 */
import fs from "node:fs";
import path from "node:path";
import { LockstepError } from "../errors.ts";
import { fileError, requireFile } from "../files/index.ts";
import { type Memory, mapFile } from "../memory/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { nameOfTwo } from "./names.ts";
import { modelTable, type RawGraph, type RawModel, type RawTensor } from "./schema.ts";
import { decodeTensor } from "./tensor.ts";
import { decodeMessage } from "./wire-read.ts";
import { MAX_MESSAGE_BYTES } from "./wire-write.ts";

/** The content of a model's file. */
export interface OnnxFile {
  /** The name of the file, for messages. */
  readonly name: string;
  readonly model: RawModel & { readonly graph: RawGraph };
  /**
   * Returns the tensor's elements. Weights in the file are views; those in other files are read by
   * this call.
   */
  tensor(raw: RawTensor): Tensor;
}

/**
 * Reads an `.onnx` file. Its bytes, and those of files of weights, are mapped and not copied: a
 * file may be replaced by a new one, but must not be written to while it is in use. Throws
 * FILE_NOT_FOUND, IO_FAILED, ONNX_PARSE, FILE_CORRUPT.
 */
export function readModel(file: string): OnnxFile {
  return decodeModel(readFile(file), { name: file, folder: path.dirname(file) });
}

// Smaller files are read, because a mapping costs some system calls and needs a file descriptor.
const MIN_MAPPED_BYTES = 2 ** 20;

function readFile(file: string): Uint8Array {
  try {
    requireFile(file);
    const { size } = fs.statSync(file);
    if (size > MAX_MESSAGE_BYTES) {
      throw new LockstepError("ONNX_PARSE", `${file} is larger than an ONNX file can be (2 GiB).`, {
        hint: "Larger models keep their weights in files beside them (external data).",
        fields: { file },
      });
    }
    return size < MIN_MAPPED_BYTES ? fs.readFileSync(file) : mapFile(file).bytes;
  } catch (error) {
    throw fileError(error, "read", file);
  }
}

export interface DecodeOptions {
  /** The name for messages, usually the path. */
  readonly name?: string;
  /** The folder of external data. Without it, a model with external data is refused. */
  readonly folder?: string;
}

/**
 * Decodes the bytes of an `.onnx` file. The bytes must not change afterwards: weights are views.
 */
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
  const twice = nameOfTwo(model);
  if (twice !== undefined) {
    throw new LockstepError(
      "ONNX_PARSE",
      `${name} is not a valid ONNX file: two of its values are named "${twice}".`,
      {
        hint: `Which of them a node reads cannot be told. If "${twice}" is the name of a parameter, give it a longer one and export again.`,
        fields: { file: name },
      },
    );
  }
  const { folder } = options;
  const mapped = new Map<string, Memory>();
  return {
    name,
    model: { ...model, graph },
    tensor: (raw) =>
      decodeTensor(raw, `${name}: tensor "${raw.name}"`, (tensor, byteLength) =>
        folder === undefined
          ? wrong(`tensor "${tensor.name}" lies in another file`)
          : readExternal(tensor, byteLength, folder, name, mapped),
      ),
  };
}

/** Checks that a link leads to a place below the model's folder. */
function checkPlace(file: string, folder: string, what: string, location: string): void {
  if (!fs.existsSync(file)) return; // the code that maps the file reports it
  const inside = path.relative(fs.realpathSync(folder), fs.realpathSync(file));
  if (!inside.startsWith("..") && !path.isAbsolute(inside)) return;
  throw new LockstepError(
    "ONNX_PARSE",
    `${what}: "${location}" is a link that leaves the folder of the model.`,
    { hint: "External data must lie in the folder of the model or below it: copy it there." },
  );
}

/**
 * Reads data beside the model: `location` (a relative path inside the folder), `offset`, `length`.
 */
function readExternal(
  raw: RawTensor,
  byteLength: number,
  folder: string,
  model: string,
  mapped: Map<string, Memory>,
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
  checkPlace(file, folder, what, location);
  const length = number("length", byteLength);
  if (length !== byteLength) {
    throw new LockstepError(
      "ONNX_PARSE",
      `${what}: its shape needs ${byteLength} bytes, length is ${length}.`,
    );
  }
  const memory = mapped.get(file) ?? mapFile(file);
  mapped.set(file, memory);
  const offset = number("offset", 0);
  if (offset + length > memory.byteLength) {
    throw new LockstepError(
      "FILE_CORRUPT",
      `${what}: ${file} has ${memory.byteLength} bytes, at least ${offset + length} were expected.`,
      { hint: "The file is cut short. Copy or export it again.", fields: { file } },
    );
  }
  return memory.view(offset, length);
}
