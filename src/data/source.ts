/**
 * What a source of data is, and what it becomes when it is opened. A source is plain data: it is
 * sent to workers unchanged, and `openData` (in `open.ts`) finds the code by its `kind`. Nothing
 * here knows a file format.
 */
import type { Tensor, TensorType } from "../tensor/index.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Options that every source takes. */
export interface SourceOptions {
  /**
   * The fraction of the data that is held out for validation, 0 to 0.5. It does not depend on the
   * seed of a run.
   */
  readonly heldOut?: number;
  /**
   * The field of the data that feeds an input of the model, if their names differ: `{ input_ids:
   * "ids" }`.
   */
  readonly fields?: Readonly<Record<string, string>>;
}

export interface OpenRequest {
  /** The model's inputs that data must fill; the leading dim of each is the batch. */
  readonly inputs: readonly ModelInput[];
  /** The folder that relative paths and globs start from. */
  readonly baseDir: string;
  /** The folders below which all files must lie, after links are followed. Undefined: anywhere. */
  readonly roots?: readonly string[] | undefined;
  /** The number of samples of one step over all workers. Default: the leading dim of the inputs. */
  readonly batch?: number;
}

export interface ModelInput {
  readonly name: string;
  readonly type: TensorType;
  /**
   * The range of each element of a sample, in order; a single range applies to all elements.
   * Undefined: any number.
   */
  readonly ranges?: readonly (ValueRange | undefined)[] | undefined;
}

/** The numbers from `low` to `high`, both included, and those in `except`. */
export interface ValueRange {
  /** Whether only integers are allowed. Default: true. */
  readonly whole?: boolean;
  readonly low: number;
  readonly high: number;
  readonly except: readonly number[];
}

/** An opened source. It does not know the order of samples: see `SampleOrder`. */
export interface Dataset {
  readonly train: SampleSet;
  /** The held-out samples; undefined if nothing is held out. */
  readonly validation: SampleSet | undefined;
  /** Set for sources of text. */
  readonly text: TextData | undefined;
  /** A summary for people: `1,234 files, 5.2 MB of text, 4% held out`. */
  readonly summary: string;
  close(): Promise<void>;
}

/**
 * Samples, numbered from 0 to `length` - 1. The same number is the same sample on every machine.
 */
export interface SampleSet {
  readonly length: number;
  /**
   * Reads samples into tensors by input name; the leading dim of each tensor is `indices.length`.
   * Tensors of an engine may be used. Calls may overlap if their tensors do not.
   */
  read(indices: readonly number[], into: Readonly<Record<string, Tensor>>): Promise<void>;
}

/**
 * What only sources of text have: a tokenizer and the bytes of the text, for baselines and for bits
 * per byte.
 */
export interface TextData {
  readonly tokenizer: Tokenizer;
  readonly train: TextPart;
  readonly validation: TextPart | undefined;
}

export interface TextPart {
  /** The number of UTF-8 bytes, separators between documents included. */
  readonly byteLength: number;
  readonly tokens: number;
  /** The bytes in order, in pieces. */
  bytes(): AsyncIterable<Uint8Array>;
}
