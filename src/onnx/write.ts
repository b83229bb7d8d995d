/**
 * Writes a graph to an `.onnx` file. Large weights go to a file beside it if one message cannot
 * hold them.
 */
import path from "node:path";
import { writeFileAtomic } from "../files/index.ts";
import type { Graph } from "../graph/index.ts";
import { checkOptions, choice, type OptionKinds } from "../options.ts";
import { ENCODE_OPTIONS, type EncodeOptions, toRawModel } from "./encode.ts";
import { modelTable, type RawTensor } from "./schema.ts";
import type { BytesInPieces } from "./wire.ts";
import { encodeInPieces, inTurn } from "./wire-write.ts";

export interface WriteOptions extends EncodeOptions {
  /**
   * Whether weights go to `FILE.data` beside the model: if one file cannot hold them (`auto`), or
   * always.
   */
  readonly externalData?: "auto" | "always";
}

const WRITE_OPTIONS: OptionKinds<WriteOptions> = {
  ...ENCODE_OPTIONS,
  externalData: choice("auto", "always").optional(),
};

const MAX_OWN_BYTES = 1.9 * 2 ** 30;
const MIN_EXTERNAL_BYTES = 1024;
// The unit of memory mapping on the systems in use.
const ALIGNMENT = 4096;

/** Writes the file whole, or leaves what was there. Throws DISK_FULL, IO_FAILED. */
export async function writeModel(
  file: string,
  graph: Graph,
  options: WriteOptions = {},
): Promise<void> {
  checkOptions("writeModel", options, WRITE_OPTIONS);
  const model = toRawModel(graph, options);
  const weights = model.graph?.initializer ?? [];
  const total = weights.reduce((sum, { rawData }) => sum + rawData.byteLength, 0);
  if (options.externalData === "always" || total > MAX_OWN_BYTES) {
    const location = `${path.basename(file)}.data`;
    const pieces = moveOut(weights, location);
    const external = path.join(path.dirname(file), location);
    if (pieces.length > 0) await writeFileAtomic(external, inTurn(pieces));
  }
  await writeFileAtomic(file, encodeInPieces(modelTable, model).pieces());
}

/**
 * Replaces the data of large tensors by references to `location`. Returns what that file must hold,
 * in order.
 */
function moveOut(weights: readonly RawTensor[], location: string): (Uint8Array | BytesInPieces)[] {
  const pieces: (Uint8Array | BytesInPieces)[] = [];
  let end = 0;
  for (const weight of weights) {
    const bytes = weight.rawData;
    if (bytes.byteLength < MIN_EXTERNAL_BYTES) continue;
    const offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    if (offset > end) pieces.push(new Uint8Array(offset - end));
    pieces.push(bytes);
    end = offset + bytes.byteLength;
    weight.rawData = new Uint8Array(0);
    weight.dataLocation = 1;
    weight.externalData = [
      { key: "location", value: location },
      { key: "offset", value: String(offset) },
      { key: "length", value: String(bytes.byteLength) },
    ];
  }
  return pieces;
}
