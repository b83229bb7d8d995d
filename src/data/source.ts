/**
 * What a source of data is, and what it becomes when opened. A source is plain data: it travels to workers
 * as it stands, and `openData` (in `open.ts`) finds the code by its `kind`. Nothing here knows a file format.
 */
import type { Tensor, TensorType } from "../tensor/index.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Options that every source takes. */
export interface SourceOptions {
  /** The part kept for validation, 0 to 0.5 of the data. It does not depend on the seed of a run. */
  readonly heldOut?: number;
  /** Which field of the data feeds an input of the model, where their names differ: `{ input_ids: "ids" }`. */
  readonly fields?: Readonly<Record<string, string>>;
}

export interface OpenRequest {
  /** The model's inputs that data must fill; the leading dim of each is the batch. */
  readonly inputs: readonly ModelInput[];
  /** Relative paths and globs start here. */
  readonly baseDir: string;
  /** Folders below which all files must lie, links followed; anywhere if undefined. */
  readonly roots?: readonly string[] | undefined;
  /** Samples of one step over all workers; the leading dim of the inputs unless told. */
  readonly batch?: number;
}

export interface ModelInput {
  readonly name: string;
  readonly type: TensorType;
  /** What each element of a sample may be, in order; a single one is that of all. Undefined: any number. */
  readonly ranges?: readonly (ValueRange | undefined)[] | undefined;
}

/** Numbers from `low` to `high`, both included, and those of `except`. */
export interface ValueRange {
  /** Default: true. False where fractions will do, too. */
  readonly whole?: boolean;
  readonly low: number;
  readonly high: number;
  readonly except: readonly number[];
}

/** An opened source. The order of samples is not its business: see `SampleOrder`. */
export interface Dataset {
  readonly train: SampleSet;
  /** Undefined when nothing is held out. */
  readonly validation: SampleSet | undefined;
  /** Of sources of text. */
  readonly text: TextData | undefined;
  /** For people: `1,234 files, 5.2 MB of text, 4% held out`. */
  readonly summary: string;
  close(): Promise<void>;
}

/** Samples, numbered from 0 to `length` - 1. The same number is the same sample on every machine. */
export interface SampleSet {
  readonly length: number;
  /**
   * Reads samples into tensors by input name; the leading dim of each tensor is `indices.length`.
   * An engine's tensor will do. Calls may overlap if their tensors do not.
   */
  read(indices: readonly number[], into: Readonly<Record<string, Tensor>>): Promise<void>;
}

/** What only text has: its tokenizer, and its bytes, for baselines and for bits per byte. */
export interface TextData {
  readonly tokenizer: Tokenizer;
  readonly train: TextPart;
  readonly validation: TextPart | undefined;
}

export interface TextPart {
  /** UTF-8 bytes, separators between documents included. */
  readonly byteLength: number;
  readonly tokens: number;
  /** The bytes in order, in pieces. */
  bytes(): AsyncIterable<Uint8Array>;
}
