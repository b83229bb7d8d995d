/**
 * Images and labels in the IDX format of MNIST, plain or gzipped.
 * Format: https://github.com/cvdfoundation/mnist (what yann.lecun.com/exdb/mnist said)
 */
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { LockstepError } from "../errors.ts";
import { readFileWhole } from "../files/index.ts";
import { checkOptions } from "../options.ts";
import { byteLength, type Tensor } from "../tensor/index.ts";
import { memoryColumn, recordsOf } from "./columns.ts";
import { checkPaths, SOURCE_OPTIONS } from "./options.ts";
import { pathOf } from "./place.ts";
import { openRecords } from "./records.ts";
import type { Dataset, OpenRequest, SourceOptions } from "./source.ts";

export interface IdxSource extends SourceOptions {
  readonly kind: "idx";
  readonly images: string;
  readonly labels: string;
}

/**
 * Provides `image` and `label`. Pixels become 0 to 1 if the model's input is a float, and stay 0 to
 * 255 if it is an integer. An image [28, 28] also feeds [1, 28, 28] and [784]. Default of
 * `heldOut`: a tenth.
 */
export function idxImages(
  files: { readonly images: string; readonly labels: string },
  options: SourceOptions = {},
): IdxSource {
  checkOptions("idxImages()", options, SOURCE_OPTIONS);
  checkPaths("idxImages()", { images: files?.images, labels: files?.labels });
  return { ...options, kind: "idx", images: files.images, labels: files.labels };
}

export async function openIdx(source: IdxSource, request: OpenRequest): Promise<Dataset> {
  const name = `idxImages("${source.images}")`;
  const [image, label] = await Promise.all(
    [source.images, source.labels].map((file) => readIdx(pathOf(file, request))),
  );
  const records = recordsOf(
    {
      image: memoryColumn(image as Tensor, (image as Tensor).bytes, 1 / 255),
      label: memoryColumn(label as Tensor, (label as Tensor).bytes),
    },
    name,
  );
  return openRecords(records, request, source, name);
}

/** The largest size that a file may unpack to: a decompression bomb must not fill the memory. */
const MAX_BYTES = 2 ** 30;

async function readIdx(path: string): Promise<Tensor> {
  let bytes = await readFileWhole(path);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    try {
      bytes = await promisify(gunzip)(bytes, { maxOutputLength: MAX_BYTES });
    } catch (error) {
      throw corrupt(path, "it cannot be unpacked", error);
    }
  }
  return parseIdx(bytes, path);
}

/**
 * Parses two zeros, the element type (8: uint8), the number of dims, each dim as a big-endian
 * uint32, and the elements.
 */
export function parseIdx(bytes: Uint8Array, path: string): Tensor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [zero, zeroToo, type, rank = 0] = bytes;
  const headerBytes = 4 + 4 * rank;
  if (zero !== 0 || zeroToo !== 0 || rank === 0 || bytes.length < headerBytes) {
    throw corrupt(path, "it does not begin like one");
  }
  if (type !== 8) {
    throw new LockstepError(
      "DATA_FORMAT",
      `"${path}" holds elements of IDX type ${type}; only 8 (unsigned bytes) is understood.`,
    );
  }
  const shape = Array.from({ length: rank }, (_, dim) => view.getUint32(4 + 4 * dim));
  const expected = headerBytes + byteLength({ dtype: "uint8", shape });
  if (bytes.length !== expected) {
    throw corrupt(path, `it should have ${expected} bytes, but has ${bytes.length}`);
  }
  return { dtype: "uint8", shape, bytes: bytes.subarray(headerBytes) };
}

function corrupt(path: string, what: string, cause?: unknown): LockstepError {
  return new LockstepError("FILE_CORRUPT", `"${path}" is not a whole IDX file: ${what}.`, {
    fields: { path },
    cause,
  });
}
