/**
 * Decodes bytes to messages. Byte fields are views of the input; anything malformed is ONNX_PARSE.
 */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { LockstepError } from "../errors.ts";
import { type FieldSpec, type Fields, layoutOf, type MessageTable, type Table } from "./wire.ts";

// Bounds against hostile files, far above those of real models.
const MAX_DEPTH = 100;
const MAX_ITEMS = 20_000_000;

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

/**
 * Packed numbers are a view; numbers that are written one by one are gathered in a growing buffer
 * (this is rare, and doubling its size keeps the time linear).
 */
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
