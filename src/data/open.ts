/** Every kind of source, and the code that opens it. */
import { LockstepError } from "../errors.ts";
import {
  type ArraysSource,
  type NpySource,
  openArrays,
  openNpy,
  openSafetensors,
  type SafetensorsSource,
} from "./arrays.ts";
import { type CsvSource, openCsv } from "./csv.ts";
import { type IdxSource, openIdx } from "./idx.ts";
import { type JsonlSource, openJsonl } from "./jsonl.ts";
import type { Dataset, OpenRequest } from "./source.ts";
import { openText, type TextSource } from "./text.ts";

/** The data that a run trains on: plain data, made by `text()`, `csv()` and the like. */
export type DataSource =
  | TextSource
  | JsonlSource
  | CsvSource
  | ArraysSource
  | NpySource
  | SafetensorsSource
  | IdxSource;

type Opener<Source> = (source: Source, request: OpenRequest) => Promise<Dataset>;

/**
 * The function that opens each kind of source. The type names every kind, so none can be forgotten.
 */
const OPENERS: {
  readonly [Kind in DataSource["kind"]]: Opener<Extract<DataSource, { kind: Kind }>>;
} = {
  text: openText,
  jsonl: openJsonl,
  csv: openCsv,
  arrays: openArrays,
  npy: openNpy,
  safetensors: openSafetensors,
  idx: openIdx,
};

/**
 * Opens data for a model. Throws FILE_NOT_FOUND, FILE_CORRUPT, DATA_EMPTY, DATA_FORMAT (the data
 * lacks a field that the model needs), DATA_TOO_SMALL (there is less than one batch) or
 * INVALID_OPTION.
 */
export async function openData(source: DataSource, request: OpenRequest): Promise<Dataset> {
  if (!Object.hasOwn(OPENERS, source.kind)) {
    throw new LockstepError(
      "INVALID_OPTION",
      `There is no source of data of the kind "${source.kind}".`,
      { hint: 'Make one with text(), jsonl(), csv(), arrays() and the like from "lockstep".' },
    );
  }
  const open = OPENERS[source.kind] as Opener<DataSource>;
  return open(source, request);
}
