/**
 * Device memory that is not memory of this process, as far as any caller can tell: a handle without
 * bytes. Only the device in this folder looks into it, so any code that works on this device
 * reaches tensors by upload and download only.
 */
import { assert, LockstepError } from "../../errors.ts";
import type { TensorType } from "../../tensor/index.ts";
import { checkPlace } from "../bindings.ts";
import type { DeviceBuffer, DeviceTensor } from "../engine.ts";

const contents = new WeakMap<OpaqueBuffer, Uint8Array>();

/** The address of the next buffer, for checks of overlap: beyond all addresses of this process. */
let nextAddress = 1n << 64n;

export class OpaqueBuffer implements DeviceBuffer {
  readonly byteLength: number;
  readonly space = "device";
  readonly owner: object;
  readonly address: bigint;
  readonly #onClose: () => void;
  #closed = false;

  constructor(byteLength: number, owner: object, onClose: (buffer: OpaqueBuffer) => void) {
    this.byteLength = byteLength;
    this.owner = owner;
    this.address = nextAddress;
    nextAddress += BigInt(byteLength) + 64n;
    this.#onClose = () => onClose(this);
    contents.set(this, new Uint8Array(byteLength));
  }

  get closed(): boolean {
    return this.#closed;
  }

  tensor(type: TensorType, byteOffset = 0): OpaqueTensor {
    if (this.#closed) throw closed();
    return new OpaqueTensor(type, this, byteOffset, checkPlace(type, byteOffset, this.byteLength));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
  }
}

export class OpaqueTensor implements DeviceTensor {
  readonly dtype: TensorType["dtype"];
  readonly shape: TensorType["shape"];
  readonly buffer: OpaqueBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;

  constructor(type: TensorType, buffer: OpaqueBuffer, byteOffset: number, length: number) {
    this.dtype = type.dtype;
    this.shape = [...type.shape];
    this.buffer = buffer;
    this.byteOffset = byteOffset;
    this.byteLength = length;
  }

  get address(): bigint {
    return this.buffer.address + BigInt(this.byteOffset);
  }
}

/**
 * The contents, for the device only. An execution in progress keeps them when its buffer is closed.
 */
export function contentsOf({ buffer, byteOffset, byteLength }: OpaqueTensor): Uint8Array {
  const all = contents.get(buffer);
  assert(all !== undefined, "an opaque buffer has contents");
  return all.subarray(byteOffset, byteOffset + byteLength);
}

export function closed(): LockstepError {
  return new LockstepError("ENGINE_CLOSED", "This buffer was closed.");
}
