/**
 * Writes sources to a file and reads them back: the places that they name, and their options, which
 * are checked as in a run file.
 */
import { LockstepError } from "../errors.ts";
import { type ArraysSource, arrays, npy, safetensors } from "./arrays.ts";
import { csv } from "./csv.ts";
import { idxImages } from "./idx.ts";
import { jsonl } from "./jsonl.ts";
import type { DataSource } from "./open.ts";
import { text } from "./text.ts";

type Kinds = DataSource["kind"];
type SourceOf<Kind extends Kinds> = Extract<DataSource, { readonly kind: Kind }>;

/** Replaces a place, which is a glob or the path of a file, by another one. */
export type PlaceChange = (place: string, isGlob: boolean) => string;

const PLACES: {
  readonly [Kind in Kinds]: (source: SourceOf<Kind>, change: PlaceChange) => SourceOf<Kind>;
} = {
  text: (source, change) => ({ ...source, ...globsAnd(source, change) }),
  jsonl: (source, change) => ({ ...source, ...globsAnd(source, change) }),
  csv: (source, change) => ({ ...source, globs: source.globs.map((glob) => change(glob, true)) }),
  arrays: (source) => source,
  npy: (source, change) => {
    const files = Object.entries(source.files).map(([name, file]) => [name, change(file, false)]);
    return { ...source, files: Object.fromEntries(files) as Readonly<Record<string, string>> };
  },
  safetensors: (source, change) => ({ ...source, file: change(source.file, false) }),
  idx: (source, change) => ({
    ...source,
    images: change(source.images, false),
    labels: change(source.labels, false),
  }),
};

function globsAnd(
  { globs, tokenizer }: { readonly globs: readonly string[]; readonly tokenizer?: string },
  change: PlaceChange,
) {
  const changed = globs.map((glob) => change(glob, true));
  return {
    globs: changed,
    ...(tokenizer === undefined ? {} : { tokenizer: change(tokenizer, false) }),
  };
}

/** The source with other places. Throws NOT_DATA for a source of an unknown kind. */
export function withPlaces(source: DataSource, change: PlaceChange): DataSource {
  if (!Object.hasOwn(PLACES, source.kind)) {
    throw new LockstepError(
      "NOT_DATA",
      `A source of data of the kind "${String(source.kind)}" cannot be written down, so that no other process can read it.`,
      { hint: 'Make one with text(), jsonl(), csv(), arrays() and the like from "lockstep".' },
    );
  }
  return (PLACES[source.kind] as (source: DataSource, change: PlaceChange) => DataSource)(
    source,
    change,
  );
}

type Options = Readonly<Record<string, never>>;

const MAKERS: { readonly [Kind in Kinds]: (options: Options) => SourceOf<Kind> } = {
  text: ({ globs, ...options }) => text(globs as never, options),
  jsonl: ({ globs, ...options }) => jsonl(globs as never, options),
  csv: ({ globs, ...options }) => csv(globs as never, options),
  arrays: ({ arrays: named, ...options }): ArraysSource => arrays(named as never, options),
  npy: ({ files, ...options }) => npy(files as never, options),
  safetensors: ({ file, ...options }) => safetensors(file as never, options),
  idx: ({ images, labels, ...options }) => idxImages({ images, labels } as never, options),
};

/** A source of the named kind, from options of any origin. Throws INVALID_OPTION. */
export function sourceOf(kind: string, options: Readonly<Record<string, unknown>>): DataSource {
  if (!Object.hasOwn(MAKERS, kind)) {
    throw new LockstepError("INVALID_OPTION", `There is no source of data of the kind "${kind}".`);
  }
  return MAKERS[kind as Kinds](options as Options);
}
