/**
 * Protocol-buffer messages by table: bytes ⇄ plain objects. Byte fields of a decoded message are views of the
 * input, and those of an encoded one are copied once. It knows no message: `schema.ts` does.
 */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { assert, LockstepError } from "../errors.ts";

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
  /** Numbers kept as they lie in the file: `width` bytes each, 0 for varints. */
  | { readonly number: number; readonly kind: "packed"; readonly width: 0 | 4 | 8 }
  | {
      readonly number: number;
      readonly kind: "message" | "messages";
      readonly of: () => Readonly<Record<string, FieldSpec>>;
    };

/** One entry for every field of the interface: a missing one does not compile. */
export type MessageTable<T> = { readonly [K in keyof T]-?: FieldSpec };

type Fields = Record<string, unknown>;
type Table = Readonly<Record<string, FieldSpec>>;

// Bounds against hostile files: models in use are far below them.
const MAX_DEPTH = 100;
const MAX_ITEMS = 20_000_000;

const NO_BYTES = new Uint8Array(0);

/** Decodes one message. Throws ONNX_PARSE (with `what`, the file's name) on anything malformed. */
export function decodeMessage<T>(table: MessageTable<T>, bytes: Uint8Array, what: string): T {
  const decoder = new Decoder();
  try {
    return decoder.message(table, bytes, 0) as T;
  } catch (cause) {
    if (cause instanceof Error && cause.message.startsWith("Lockstep bug")) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError("ONNX_PARSE", `${what} is not a valid ONNX file: ${reason}.`, {
      hint: "The file may be cut short, or be of another format.",
      cause,
    });
  }
}

class Decoder {
  #items = 0;

  message(table: Table, bytes: Uint8Array, depth: number): Fields {
    if (depth > MAX_DEPTH) throw new Error(`messages nested deeper than ${MAX_DEPTH}`);
    const { byNumber, make } = layoutOf(table);
    const fields = make();
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [number, wire] = reader.tag();
      const field = byNumber.get(number);
      if (field === undefined) reader.skip(wire, number);
      else this.#field(fields, field.name, field.spec, reader, wire, depth);
    }
    return fields;
  }

  #field(
    fields: Fields,
    name: string,
    spec: FieldSpec,
    reader: BinaryReader,
    wire: WireType,
    depth: number,
  ): void {
    if (++this.#items > MAX_ITEMS) throw new Error(`more than ${MAX_ITEMS} fields`);
    switch (spec.kind) {
      case "int":
      case "optionalInt":
        expectWire(wire, WireType.Varint, name);
        fields[name] = Number(reader.int64());
        return;
      case "float":
      case "optionalFloat":
        expectWire(wire, WireType.Bit32, name);
        fields[name] = reader.float();
        return;
      case "string":
        fields[name] = utf8.decode(delimited(reader, wire, name));
        return;
      case "bytes":
      case "optionalBytes":
        fields[name] = delimited(reader, wire, name);
        return;
      case "strings":
        (fields[name] as string[]).push(utf8.decode(delimited(reader, wire, name)));
        return;
      case "byteLists":
        (fields[name] as Uint8Array[]).push(delimited(reader, wire, name));
        return;
      case "ints":
        this.#numbers(fields[name] as number[], reader, wire, WireType.Varint, (from) =>
          Number(from.int64()),
        );
        return;
      case "floats":
        this.#numbers(fields[name] as number[], reader, wire, WireType.Bit32, (from) =>
          from.float(),
        );
        return;
      case "packed":
        fields[name] = appendPacked(fields[name] as Uint8Array, spec.width, reader, wire);
        return;
      case "message":
        fields[name] = this.message(spec.of(), delimited(reader, wire, name), depth + 1);
        return;
      case "messages":
        (fields[name] as Fields[]).push(
          this.message(spec.of(), delimited(reader, wire, name), depth + 1),
        );
        return;
    }
  }

  #numbers(
    list: number[],
    reader: BinaryReader,
    wire: WireType,
    single: WireType,
    read: (reader: BinaryReader) => number,
  ): void {
    if (wire === single) {
      list.push(read(reader));
      return;
    }
    const packed = new BinaryReader(delimited(reader, wire, "list"));
    while (packed.pos < packed.len) {
      if (++this.#items > MAX_ITEMS) throw new Error(`more than ${MAX_ITEMS} fields`);
      list.push(read(packed));
    }
  }
}

const utf8 = new TextDecoder();

function expectWire(wire: WireType, expected: WireType, name: string): void {
  if (wire !== expected) throw new Error(`field "${name}" has wire type ${wire}`);
}

function delimited(reader: BinaryReader, wire: WireType, name: string): Uint8Array {
  expectWire(wire, WireType.LengthDelimited, name);
  return reader.bytes();
}

/** Packed numbers are a view; numbers written one by one are gathered (rare: doubling keeps that linear). */
function appendPacked(
  before: Uint8Array,
  width: 0 | 4 | 8,
  reader: BinaryReader,
  wire: WireType,
): Uint8Array {
  let more: Uint8Array;
  if (wire === WireType.LengthDelimited) {
    more = reader.bytes();
  } else {
    const expected = width === 0 ? WireType.Varint : width === 4 ? WireType.Bit32 : WireType.Bit64;
    expectWire(wire, expected, "list");
    more = reader.skip(wire);
  }
  if (width > 0 && more.byteLength % width !== 0) throw new Error("a packed list is cut short");
  if (before.byteLength === 0) return more;
  const length = before.byteLength + more.byteLength;
  const grown = gathered.has(before.buffer) ? before.buffer : new ArrayBuffer(0);
  if (grown.byteLength >= length) {
    const view = new Uint8Array(grown, 0, length);
    view.set(more, before.byteLength);
    return view;
  }
  const buffer = new ArrayBuffer(length * 2);
  gathered.add(buffer);
  const view = new Uint8Array(buffer, 0, length);
  view.set(before);
  view.set(more, before.byteLength);
  return view;
}

/** Buffers that `appendPacked` made and may write into. */
const gathered = new WeakSet<ArrayBufferLike>();

interface Layout {
  readonly byNumber: ReadonlyMap<number, { readonly name: string; readonly spec: FieldSpec }>;
  readonly make: () => Fields;
}

const layouts = new WeakMap<Table, Layout>();

function layoutOf(table: Table): Layout {
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

/** A message with every field empty, then those given. */
export function makeMessage<T>(table: MessageTable<T>, fields: Partial<T>): T {
  return { ...layoutOf(table).make(), ...fields } as T;
}

/** Encodes one message; fields are written by number, empty ones left out. */
export function encodeMessage<T>(table: MessageTable<T>, message: T): Uint8Array {
  const chunks: Uint8Array[] = [];
  const length = encodeInto(table, message as Fields, chunks, new BinaryWriter());
  if (length > MAX_MESSAGE_BYTES) {
    throw new LockstepError(
      "ONNX_UNSUPPORTED",
      `This model takes ${length} bytes; one ONNX message holds at most ${MAX_MESSAGE_BYTES}.`,
      { hint: "Write its weights to a file beside it (external data)." },
    );
  }
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return bytes;
}

/** What every reader of protocol buffers takes. */
export const MAX_MESSAGE_BYTES = 2 ** 31 - 1;

/** Appends the message's bytes to `chunks` and returns their number. Large byte fields are not copied. */
function encodeInto(
  table: Table,
  message: Fields,
  chunks: Uint8Array[],
  writer: BinaryWriter,
): number {
  let length = 0;
  const flush = () => {
    const bytes = writer.finish();
    if (bytes.byteLength === 0) return;
    chunks.push(bytes);
    length += bytes.byteLength;
  };
  const bytes = (number: number, value: Uint8Array) => {
    writer.tag(number, WireType.LengthDelimited).uint32(value.byteLength);
    flush();
    chunks.push(value);
    length += value.byteLength;
  };
  const nested = (number: number, of: Table, value: Fields) => {
    flush();
    const inner: Uint8Array[] = [];
    const size = encodeInto(of, value, inner, writer);
    writer.tag(number, WireType.LengthDelimited).uint32(Math.min(size, 0xffffffff));
    flush();
    for (const chunk of inner) chunks.push(chunk);
    length += size;
  };
  for (const [name, spec] of Object.entries(table)) {
    const value = message[name];
    const { number } = spec;
    switch (spec.kind) {
      case "int":
        if (value !== 0) writer.tag(number, WireType.Varint).int64(toInt64(value as number));
        break;
      case "optionalInt":
        if (value === undefined) break;
        writer.tag(number, WireType.Varint).int64(toInt64(value as number));
        break;
      case "float":
        if (value !== 0) writer.tag(number, WireType.Bit32).float(asFloat(value as number));
        break;
      case "optionalFloat":
        if (value === undefined) break;
        writer.tag(number, WireType.Bit32).float(asFloat(value as number));
        break;
      case "string":
        if (value !== "") writer.tag(number, WireType.LengthDelimited).string(value as string);
        break;
      case "bytes":
      case "packed":
        if ((value as Uint8Array).byteLength > 0) bytes(number, value as Uint8Array);
        break;
      case "optionalBytes":
        if (value !== undefined) bytes(number, value as Uint8Array);
        break;
      case "ints":
        for (const item of value as number[]) {
          writer.tag(number, WireType.Varint).int64(toInt64(item));
        }
        break;
      case "floats":
        for (const item of value as number[]) {
          writer.tag(number, WireType.Bit32).float(asFloat(item));
        }
        break;
      case "strings":
        for (const item of value as string[]) {
          writer.tag(number, WireType.LengthDelimited).string(item);
        }
        break;
      case "byteLists":
        for (const item of value as Uint8Array[]) bytes(number, item);
        break;
      case "message":
        if (value !== undefined) nested(number, spec.of(), value as Fields);
        break;
      case "messages":
        for (const item of value as Fields[]) nested(number, spec.of(), item);
        break;
    }
  }
  flush();
  return length;
}

const INT64_MAX = 2n ** 63n - 1n;
const INT64_MIN = -(2n ** 63n);

/** Doubles near ±2^63 stand for "to the end" in slices; they are clamped. */
function toInt64(value: number): bigint | number {
  if (Number.isSafeInteger(value)) return value;
  assert(Number.isInteger(value), `${value} is not an integer`);
  const big = BigInt(value);
  return big > INT64_MAX ? INT64_MAX : big < INT64_MIN ? INT64_MIN : big;
}

/** The nearest float32; the writer refuses finite numbers beyond its range. */
function asFloat(value: number): number {
  return Math.fround(value);
}
