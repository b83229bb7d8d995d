/**
 * Frames on a stream: a header of 40 bytes, then the payload. On a sealed stream each of the two is
 * followed by its tag. The reader trusts nothing: it checks the tag and every field of a header
 * before it takes a byte of the payload, passes nothing on before its tag is checked, and never
 * allocates what a header asks for. This file knows no socket.
 *
 * The header, little endian: magic u16, version u8, type u8, payload bytes u32, channel f64,
 * sequence f64, length of the whole message f64, offset of the payload in it f64.
 */
import { sameBytes } from "./exchange.ts";
import { type Seal, TAG_BYTES } from "./seal.ts";

export const FRAME = {
  message: 1,
  credit: 2,
  abort: 3,
  ping: 4,
  bye: 5,
  offer: 6,
  hello: 16,
  challenge: 17,
  proof: 18,
  welcome: 19,
  refusal: 20,
  join: 21,
} as const;

export type FrameType = (typeof FRAME)[keyof typeof FRAME];

export interface Frame {
  readonly type: FrameType;
  /** The bytes of the payload. */
  readonly length: number;
  readonly channel: number;
  /** The number of the message within its channel. */
  readonly sequence: number;
  /** The bytes of the whole message, of which the payload is the part from `offset`. */
  readonly total: number;
  readonly offset: number;
}

export const PROTOCOL_VERSION = 2;
export const HEADER_BYTES = 40;
/** The longest payload of a message frame, and of all other frames. */
export const MAX_FRAME_BYTES = 2 ** 20;
export const MAX_CONTROL_BYTES = 2048;

const MAGIC = 0x534c;
const NOT_OURS = "sent bytes that are not Lockstep's";
const TYPES: ReadonlySet<number> = new Set(Object.values(FRAME));
/** The types with a payload, and those about a message. All others are an empty header. */
const WITH_PAYLOAD: ReadonlySet<number> = new Set([
  FRAME.message,
  FRAME.abort,
  FRAME.hello,
  FRAME.challenge,
  FRAME.proof,
  FRAME.refusal,
  FRAME.join,
]);
const OF_MESSAGE: ReadonlySet<number> = new Set([FRAME.message, FRAME.credit, FRAME.offer]);
/**
 * A payload of up to this many bytes is copied into its frame, because one buffer is cheaper to
 * send than three.
 */
export const JOINED_BYTES = 2 ** 16;
const LARGEST_MESSAGE = 2 ** 46;

/** Fields that are left out are 0, and `total` is `length`. */
export type Head = Partial<Frame> & Pick<Frame, "type">;

export function encodeHeader(frame: Head): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  writeHeader(bytes, frame);
  return bytes;
}

function writeHeader(bytes: Uint8Array, frame: Head): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  const { type, length = 0, channel = 0, sequence = 0, total = length, offset = 0 } = frame;
  view.setUint16(0, MAGIC, true);
  view.setUint8(2, PROTOCOL_VERSION);
  view.setUint8(3, type);
  view.setUint32(4, length, true);
  view.setFloat64(8, channel, true);
  view.setFloat64(16, sequence, true);
  view.setFloat64(24, total, true);
  view.setFloat64(32, offset, true);
}

/**
 * Returns the bytes of a frame, to be sent one after the other. They include `payload`, which is
 * not copied if it is long.
 */
export function sealFrame(head: Head, payload: Uint8Array, seal: Seal | undefined): Uint8Array[] {
  const length = payload.byteLength;
  const isJoined = length <= JOINED_BYTES;
  const tagBytes = seal === undefined ? 0 : TAG_BYTES;
  const start = HEADER_BYTES + tagBytes;
  const end = isJoined ? start + length : start;
  const bytes = new Uint8Array(end + (length > 0 ? tagBytes : 0));
  const header = bytes.subarray(0, HEADER_BYTES);
  writeHeader(header, { ...head, length });
  writeTag(seal, header, bytes.subarray(HEADER_BYTES, start));
  if (length > 0) {
    if (isJoined) bytes.set(payload, start);
    writeTag(seal, payload, bytes.subarray(end));
  }
  return isJoined ? [bytes] : [bytes.subarray(0, start), payload, bytes.subarray(end)];
}

function writeTag(seal: Seal | undefined, bytes: Uint8Array, into: Uint8Array): void {
  seal?.add(bytes);
  seal?.tag(into);
}

/** Whether a header may begin with these two bytes. */
function isOurs(bytes: Uint8Array): boolean {
  return (bytes[0] ?? 0) + 256 * (bytes[1] ?? 0) === MAGIC;
}

/** Returns a frame, or what is wrong with it. */
export function decodeHeader(bytes: Uint8Array): Frame | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (!isOurs(bytes)) return NOT_OURS;
  const version = view.getUint8(2);
  if (version !== PROTOCOL_VERSION) {
    return `speaks version ${version} of the protocol, but this side speaks ${PROTOCOL_VERSION}`;
  }
  const type = view.getUint8(3);
  if (!TYPES.has(type)) return `sent a frame of unknown type ${type}`;
  const length = view.getUint32(4, true);
  const [channel, sequence, total, offset] = [8, 16, 24, 32].map((at) =>
    view.getFloat64(at, true),
  ) as [number, number, number, number];
  const whole = [channel, sequence, total, offset].every(
    (value) => Number.isSafeInteger(value) && value >= 0,
  );
  const most = type === FRAME.message ? MAX_FRAME_BYTES : MAX_CONTROL_BYTES;
  if (!whole || length > most || total > LARGEST_MESSAGE || offset + length > total) {
    return "sent a frame with impossible numbers";
  }
  const stray = !OF_MESSAGE.has(type) && (channel > 0 || sequence > 0 || total > length);
  if (stray || (length > 0 && !WITH_PAYLOAD.has(type)))
    return "sent a frame with unexpected contents";
  return { type: type as FrameType, length, channel, sequence, total, offset };
}

export interface FrameHandler {
  /**
   * Returns exactly `length` bytes for the payload of this message frame, or why the frame is
   * refused.
   */
  destination(frame: Frame): Uint8Array | string;
  /**
   * Called when a frame is complete. The payload of a message is at its destination; any other
   * payload is given, and is valid during the call.
   */
  frame(frame: Frame, payload: Uint8Array): void;
  /** Called when the stream cannot be used any more. */
  broken(what: string): void;
}

const ALTERED =
  "sent a frame whose seal is wrong: it was changed on its way, or another program sent it";

/** Splits a stream into frames. Bytes may come in pieces of any length. */
export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #header = new Uint8Array(HEADER_BYTES + TAG_BYTES);
  readonly #control = new Uint8Array(MAX_CONTROL_BYTES);
  /** The tag that came, and the correct one. */
  readonly #tag = new Uint8Array(TAG_BYTES);
  readonly #made = new Uint8Array(TAG_BYTES);
  #seal: Seal | undefined;
  #frame: Frame | undefined;
  #payload: Uint8Array | undefined;
  #target: Uint8Array;
  #filled = 0;
  #broken = false;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
    this.#target = this.#header.subarray(0, HEADER_BYTES);
  }

  get isBroken(): boolean {
    return this.#broken;
  }

  get isInFrame(): boolean {
    return this.#frame !== undefined || this.#filled > 0;
  }

  /** Seals all frames that follow. Must be set between two frames. */
  set seal(seal: Seal) {
    this.#seal = seal;
    this.#expect(this.#header);
  }

  /** Where the next bytes of a payload can be read to directly; undefined at a header or a tag. */
  get direct(): Uint8Array | undefined {
    if (this.#broken || this.#target !== this.#payload) return undefined;
    return this.#target.subarray(this.#filled);
  }

  /** The bytes up to the next payload while pieces of a message follow each other. */
  get between(): number | undefined {
    const { length = 0, offset = 0, total = 0 } = this.#frame ?? {};
    if (this.#target !== this.#tag || offset + length >= total) return undefined;
    return TAG_BYTES - this.#filled + this.#header.byteLength;
  }

  /** Says that this many bytes were read to where `direct` pointed. */
  advance(count: number): void {
    const from = this.#filled;
    this.#filled += count;
    // An answer of a foreign program may be shorter than a header.
    const atHeader = this.#frame === undefined && this.#seal === undefined;
    if (atHeader && from < 2 && this.#filled >= 2 && !isOurs(this.#header)) {
      return this.#break(NOT_OURS);
    }
    while (!this.#broken && this.#filled === this.#target.byteLength) this.#settle();
  }

  feed(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.byteLength && !this.#broken) {
      const count = Math.min(chunk.byteLength - at, this.#target.byteLength - this.#filled);
      this.#target.set(chunk.subarray(at, at + count), this.#filled);
      at += count;
      this.advance(count);
    }
  }

  #settle(): void {
    if (this.#frame === undefined) return this.#begin();
    const payload = this.#payload as Uint8Array;
    if (this.#seal !== undefined && payload.byteLength > 0) {
      if (this.#target === payload) return this.#expect(this.#tag);
      if (!sameBytes(this.#tagOf(this.#seal, payload), this.#tag)) return this.#break(ALTERED);
    }
    const frame = this.#frame;
    this.#frame = undefined;
    this.#payload = undefined;
    const sealed = this.#seal === undefined ? HEADER_BYTES : HEADER_BYTES + TAG_BYTES;
    this.#expect(this.#header.subarray(0, sealed));
    this.#handler.frame(frame, payload);
  }

  #begin(): void {
    const header = this.#header.subarray(0, HEADER_BYTES);
    if (this.#seal !== undefined) {
      const tag = this.#header.subarray(HEADER_BYTES);
      if (!sameBytes(this.#tagOf(this.#seal, header), tag)) return this.#break(ALTERED);
    }
    const frame = decodeHeader(header);
    if (typeof frame === "string") return this.#break(frame);
    const target =
      frame.type === FRAME.message
        ? this.#handler.destination(frame)
        : this.#control.subarray(0, frame.length);
    if (typeof target === "string") return this.#break(target);
    this.#frame = frame;
    this.#payload = target;
    this.#expect(target);
  }

  #tagOf(seal: Seal, bytes: Uint8Array): Uint8Array {
    seal.add(bytes);
    return seal.tag(this.#made);
  }

  #expect(target: Uint8Array): void {
    this.#target = target;
    this.#filled = 0;
  }

  #break(what: string): void {
    this.#broken = true;
    this.#handler.broken(what);
  }
}
