/** Samples that are rows of arrays: in memory, in .npy files, or in a .safetensors file. */
import { LockstepError } from "../errors.ts";
import { checkOptions } from "../options.ts";
import { readSafetensorsHeader } from "../safetensors/index.ts";
import type { Tensor } from "../tensor/index.ts";
import {
  checkRows,
  describeArrays,
  fileColumn,
  memoryColumn,
  openColumns,
  recordsOf,
} from "./columns.ts";
import { readNpyHeader } from "./npy.ts";
import { checkPath, checkPaths, SOURCE_OPTIONS } from "./options.ts";
import { pathOf } from "./place.ts";
import { openRecords } from "./records.ts";
import type { Dataset, OpenRequest, SourceOptions } from "./source.ts";

export interface ArraysSource extends SourceOptions {
  readonly kind: "arrays";
  readonly arrays: Readonly<Record<string, Tensor>>;
}

/** Arrays in memory; the first dim of each counts the samples. Default of `heldOut`: a tenth. */
export function arrays(
  named: Readonly<Record<string, Tensor>>,
  options: SourceOptions = {},
): ArraysSource {
  checkOptions("arrays()", options, SOURCE_OPTIONS);
  checkTensors(named);
  return { ...options, kind: "arrays", arrays: named };
}

/** Refuses lists of numbers, because their element type would not be known. */
function checkTensors(named: unknown): void {
  const entries = typeof named === "object" && named !== null ? Object.entries(named) : [];
  const wrong = entries.find(
    ([, tensor]) => !(typeof tensor === "object" && tensor !== null && "bytes" in tensor),
  );
  if (entries.length > 0 && wrong === undefined) return;
  const what = wrong === undefined ? "has no arrays" : `"${wrong[0]}" is not a tensor`;
  throw new LockstepError("INVALID_OPTION", `arrays(): ${what}.`, {
    hint: 'Make tensors of numbers: tensorFrom("float32", [3, 2], numbers).',
  });
}

export async function openArrays(source: ArraysSource, request: OpenRequest): Promise<Dataset> {
  const name = `arrays(${Object.keys(source.arrays).join(", ")})`;
  const columns = await openColumns(Object.keys(source.arrays), async (key) => {
    const tensor = source.arrays[key] as Tensor;
    checkRows(key, tensor, name);
    return memoryColumn(tensor, tensor.bytes);
  });
  return openRecords(recordsOf(columns, name), request, source, name);
}

export interface NpySource extends SourceOptions {
  readonly kind: "npy";
  readonly files: Readonly<Record<string, string>>;
}

/**
 * One .npy file for each field: `npy({ image: "images.npy", label: "labels.npy" })`. Default of
 * `heldOut`: a tenth.
 */
export function npy(
  files: Readonly<Record<string, string>>,
  options: SourceOptions = {},
): NpySource {
  checkOptions("npy()", options, SOURCE_OPTIONS);
  checkPaths("npy()", files);
  return { ...options, kind: "npy", files };
}

export async function openNpy(source: NpySource, request: OpenRequest): Promise<Dataset> {
  const name = `npy(${Object.values(source.files)
    .map((file) => `"${file}"`)
    .join(", ")})`;
  const columns = await openColumns(Object.keys(source.files), async (key) => {
    const path = pathOf(source.files[key] as string, request);
    const { dtype, shape, dataOffset } = await readNpyHeader(path);
    checkRows(key, { dtype, shape }, name);
    return fileColumn(path, { dtype, shape }, dataOffset);
  });
  return openRecords(recordsOf(columns, name), request, source, name);
}

export interface SafetensorsSource extends SourceOptions {
  readonly kind: "safetensors";
  readonly file: string;
}

/** The tensors of a .safetensors file, by their names. Default of `heldOut`: a tenth. */
export function safetensors(file: string, options: SourceOptions = {}): SafetensorsSource {
  checkOptions("safetensors()", options, SOURCE_OPTIONS);
  checkPath("safetensors()", "a path", file);
  return { ...options, kind: "safetensors", file };
}

export async function openSafetensors(
  source: SafetensorsSource,
  request: OpenRequest,
): Promise<Dataset> {
  const path = pathOf(source.file, request);
  const name = `safetensors("${source.file}")`;
  const { entries } = await readSafetensorsHeader(path);
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  // Only the tensors that the model needs are opened: such files may hold many others.
  const wanted = request.inputs.map((input) => source.fields?.[input.name] ?? input.name);
  const columns = await openColumns([...new Set(wanted)], async (key) => {
    const entry = byName.get(key);
    if (entry === undefined) {
      throw new LockstepError(
        "DATA_FORMAT",
        `The model needs a field "${key}", but ${name} has none.`,
        {
          hint: `It has ${describeArrays(byName)}. Say which one feeds which input: { fields: { INPUT: NAME } }.`,
        },
      );
    }
    checkRows(key, entry, name);
    return fileColumn(path, entry, entry.start);
  });
  return openRecords(recordsOf(columns, name), request, source, name);
}
