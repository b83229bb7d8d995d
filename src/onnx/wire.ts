/**
 * Tables of protocol-buffer messages: which fields a message has, and how they are stored in the
 * file. `wire-read.ts` and `wire-write.ts` use them; the messages of ONNX are in `schema.ts`.
 */
export type FieldSpec =
  | {
      readonly number: number;
      readonly kind:
        | "int"
        | "optionalInt"
        | "float"
        | "optionalFloat"
        | "string"
        | "bytes"
        | "optionalBytes"
        | "ints"
        | "floats"
        | "strings"
        | "byteLists";
    }
  /** Numbers that keep the form of the file: `width` bytes each, 0 for varints. */
  | { readonly number: number; readonly kind: "packed"; readonly width: 0 | 4 | 8 }
  | {
      readonly number: number;
      readonly kind: "message" | "messages";
      readonly of: () => Readonly<Record<string, FieldSpec>>;
    };

/** One entry for every field of the interface; the types require every entry. */
export type MessageTable<T> = { readonly [K in keyof T]-?: FieldSpec };

export type Fields = Record<string, unknown>;
export type Table = Readonly<Record<string, FieldSpec>>;

const NO_BYTES = new Uint8Array(0);

export interface Layout {
  readonly byNumber: ReadonlyMap<number, { readonly name: string; readonly spec: FieldSpec }>;
  readonly make: () => Fields;
}

const layouts = new WeakMap<Table, Layout>();

export function layoutOf(table: Table): Layout {
  const known = layouts.get(table);
  if (known !== undefined) return known;
  const entries = Object.entries(table);
  const layout: Layout = {
    byNumber: new Map(entries.map(([name, spec]) => [spec.number, { name, spec }])),
    make: () => {
      const fields: Fields = {};
      for (const [name, spec] of entries) fields[name] = emptyOf(spec);
      return fields;
    },
  };
  layouts.set(table, layout);
  return layout;
}

function emptyOf(spec: FieldSpec): unknown {
  switch (spec.kind) {
    case "int":
    case "float":
      return 0;
    case "string":
      return "";
    case "bytes":
    case "packed":
      return NO_BYTES;
    case "ints":
    case "floats":
    case "strings":
    case "byteLists":
    case "messages":
      return [];
    case "optionalInt":
    case "optionalFloat":
    case "optionalBytes":
    case "message":
      return undefined;
  }
}

/** A message with the given fields; all others are empty. */
export function makeMessage<T>(table: MessageTable<T>, fields: Partial<T>): T {
  return { ...layoutOf(table).make(), ...fields } as T;
}

/** Bytes that are looked at when they are written. */
export interface BytesInPieces {
  readonly byteLength: number;
  readonly pieces: () => Iterable<Uint8Array>;
}
