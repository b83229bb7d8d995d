/**
 * Frames on a stream: 40 bytes of header, then the payload. The reader trusts nothing: it checks every field before it takes a
 * byte of the payload, and never allocates by what a header says. Once keys are agreed on, a tag follows each frame, and only a frame
 * with the right one is complete. It knows no socket.
 *
 * Header, little endian: magic u16, version u8, type u8, payload bytes u32, channel f64, sequence f64, length of the
 * whole message f64, offset of the payload in it f64.
 */
import { sameBytes } from "./exchange.ts";
import { type Seal, TAG_BYTES } from "./seal.ts";

export const FRAME = {
  message: 1,
  credit: 2,
  abort: 3,
  ping: 4,
  bye: 5,
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
  /** Bytes of the payload. */
  readonly length: number;
  readonly channel: number;
  /** The number of the message within its channel. */
  readonly sequence: number;
  /** Bytes of the whole message, of which the payload is the part from `offset`. */
  readonly total: number;
  readonly offset: number;
}

export const PROTOCOL_VERSION = 2;
export const HEADER_BYTES = 40;
/** The longest payload of a message frame, and of all others. */
export const MAX_PIECE_BYTES = 2 ** 23;
export const MAX_CONTROL_BYTES = 2048;

const MAGIC = 0x534c;
const NOT_OURS = "sent bytes that are not Lockstep's";
const TYPES: ReadonlySet<number> = new Set(Object.values(FRAME));
const LARGEST_MESSAGE = 2 ** 46;

export function encodeHeader(frame: Partial<Frame> & Pick<Frame, "type">): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  writeHeader(bytes, frame);
  return bytes;
}

export function writeHeader(into: Uint8Array, frame: Partial<Frame> & Pick<Frame, "type">): void {
  const view = new DataView(into.buffer, into.byteOffset, HEADER_BYTES);
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

/** A whole frame other than a message. */
export function encodeControl(
  frame: Partial<Frame> & Pick<Frame, "type">,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
  writeHeader(bytes, { ...frame, length: payload.byteLength });
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** Whether a header may begin so: looks at two bytes. */
function isOurs(bytes: Uint8Array): boolean {
  return (bytes[0] ?? 0) + 256 * (bytes[1] ?? 0) === MAGIC;
}

/** A frame, or what is wrong with it. */
export function decodeHeader(bytes: Uint8Array): Frame | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (!isOurs(bytes)) return NOT_OURS;
  const version = view.getUint8(2);
  if (version !== PROTOCOL_VERSION) {
    return `speaks version ${version} of the protocol, this one ${PROTOCOL_VERSION}`;
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
  const most = type === FRAME.message ? MAX_PIECE_BYTES : MAX_CONTROL_BYTES;
  if (!whole || length > most || total > LARGEST_MESSAGE || offset + length > total) {
    return "sent a frame with impossible numbers";
  }
  return { type: type as FrameType, length, channel, sequence, total, offset };
}

export interface FrameHandler {
  /** Where the payload of this message frame goes: exactly `length` bytes, or why it is refused. */
  destination(frame: Frame): Uint8Array | string;
  /** So many more bytes of a message frame's payload are where they belong, from this place in it. */
  arrived?(frame: Frame, from: number, byteLength: number): void;
  /** The frame is complete. A message's payload is where it belongs; another's is given, valid during the call. */
  frame(frame: Frame, payload: Uint8Array): void;
  /** The stream is of no use any more. */
  broken(what: string): void;
}

/** Takes a stream apart. Bytes may come in pieces of any length. */
export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #control = new Uint8Array(MAX_CONTROL_BYTES);
  readonly #tag = new Uint8Array(TAG_BYTES);
  #seal: Seal | undefined;
  /** At a header: undefined. */
  #frame: Frame | undefined;
  #payload: Uint8Array;
  /** Where bytes go now: header, payload or tag. */
  #target: Uint8Array;
  #filled = 0;
  #broken = false;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
    this.#target = this.#header;
    this.#payload = this.#control;
  }

  get isBroken(): boolean {
    return this.#broken;
  }

  /** From the next frame on, takes only what is sealed so. */
  unseal(seal: Seal): void {
    this.#seal = seal;
  }

  /** Where the next bytes of a payload could be read to directly; undefined elsewhere. */
  get direct(): Uint8Array | undefined {
    if (this.#broken || this.#frame === undefined || this.#target === this.#tag) return undefined;
    return this.#target.subarray(this.#filled);
  }

  /** So many bytes were read to where `direct` said. */
  advance(count: number): void {
    const from = this.#filled;
    this.#filled += count;
    if (this.#frame !== undefined && this.#target !== this.#tag) {
      this.#seal?.add(this.#target.subarray(from, this.#filled));
      if (this.#frame.type === FRAME.message) this.#handler.arrived?.(this.#frame, from, count);
    }
    // An answer of another program may be shorter than a header.
    if (this.#frame === undefined && from < 2 && this.#filled >= 2 && !isOurs(this.#header)) {
      return this.#break(NOT_OURS);
    }
    this.#settle();
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

  /** Goes on as far as all bytes are there. */
  #settle(): void {
    while (!this.#broken && this.#filled === this.#target.byteLength) {
      if (this.#frame === undefined) this.#begin();
      else if (this.#seal !== undefined && this.#target !== this.#tag) this.#aim(this.#tag);
      else if (this.#seal !== undefined && !sameBytes(this.#seal.tag(), this.#tag)) {
        this.#break("sent a frame that is not its own, or was changed on its way");
      } else return this.#complete(this.#frame);
    }
  }

  #complete(frame: Frame): void {
    this.#frame = undefined;
    this.#aim(this.#header);
    this.#handler.frame(frame, this.#payload);
  }

  #begin(): void {
    const frame = decodeHeader(this.#header);
    if (typeof frame === "string") return this.#break(frame);
    this.#seal?.add(this.#header);
    const payload =
      frame.type === FRAME.message
        ? this.#handler.destination(frame)
        : this.#control.subarray(0, frame.length);
    if (typeof payload === "string") return this.#break(payload);
    this.#frame = frame;
    this.#payload = payload;
    this.#aim(payload);
  }

  #aim(target: Uint8Array): void {
    this.#target = target;
    this.#filled = 0;
  }

  #break(what: string): void {
    this.#broken = true;
    this.#handler.broken(what);
  }
}
