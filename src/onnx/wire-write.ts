/** Messages → bytes. Large byte fields are copied once. */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { assert, LockstepError } from "../errors.ts";
import type { BytesInPieces, Fields, MessageTable, Table } from "./wire.ts";

/** Encodes one message; fields are written by number, empty ones left out. */
export function encodeMessage<T>(table: MessageTable<T>, message: T): Uint8Array {
  const { byteLength, pieces } = encodeInPieces(table, message);
  const bytes = new Uint8Array(byteLength);
  let offset = 0;
  for (const piece of pieces()) {
    bytes.set(piece, offset);
    offset += piece.byteLength;
  }
  return bytes;
}

/**
 * Encodes like `encodeMessage`. Large byte fields are not copied, and each is read when it is its
 * turn.
 */
export function encodeInPieces<T>(table: MessageTable<T>, message: T): BytesInPieces {
  const chunks: Chunk[] = [];
  const length = encodeInto(table, message as Fields, chunks, new BinaryWriter());
  if (length > MAX_MESSAGE_BYTES) {
    throw new LockstepError(
      "ONNX_UNSUPPORTED",
      `This model takes ${length} bytes; one ONNX message holds at most ${MAX_MESSAGE_BYTES}.`,
      { hint: "Write its weights to a file beside it (external data)." },
    );
  }
  return { byteLength: length, pieces: () => inTurn(chunks) };
}

type Chunk = Uint8Array | BytesInPieces;

/** All of them, one after the other. */
export function* inTurn(chunks: readonly Chunk[]): Generator<Uint8Array> {
  for (const chunk of chunks) {
    if (chunk instanceof Uint8Array) yield chunk;
    else yield* chunk.pieces();
  }
}

/** What every reader of protocol buffers takes. */
export const MAX_MESSAGE_BYTES = 2 ** 31 - 1;

/**
 * Appends the message's bytes to `chunks` and returns their number, without copying large byte
 * fields.
 */
function encodeInto(table: Table, message: Fields, chunks: Chunk[], writer: BinaryWriter): number {
  let length = 0;
  const flush = () => {
    const bytes = writer.finish();
    if (bytes.byteLength === 0) return;
    chunks.push(bytes);
    length += bytes.byteLength;
  };
  const bytes = (number: number, value: Chunk) => {
    writer.tag(number, WireType.LengthDelimited).uint32(value.byteLength);
    flush();
    chunks.push(value);
    length += value.byteLength;
  };
  const nested = (number: number, of: Table, value: Fields) => {
    flush();
    const inner: Chunk[] = [];
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
        if ((value as Chunk).byteLength > 0) bytes(number, value as Chunk);
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
