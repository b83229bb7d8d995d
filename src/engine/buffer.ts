/**
 * Buffers in memory of this process, and tensors in them: all host memory, and the device memory of
 * a CPU.
 */
import { LockstepError } from "../errors.ts";
import type { Address, Memory } from "../memory/index.ts";
import type { TensorType } from "../tensor/index.ts";
import { checkPlace } from "./bindings.ts";
import type { DeviceBuffer, DeviceTensor, Space } from "./engine.ts";

/** A buffer in memory of this process. If its space is `host`, it is a `HostBuffer`. */
export class MemoryBuffer<S extends Space = Space> implements DeviceBuffer {
  readonly byteLength: number;
  readonly space: S;
  readonly owner: object;
  readonly memory: Memory;
  readonly #onClose: () => void;
  #pins = 0;
  #closed = false;

  /** @param owner the device that made the buffer, and the only one that accepts it */
  constructor(memory: Memory, space: S, owner: object, onClose: (buffer: MemoryBuffer) => void) {
    this.memory = memory;
    this.byteLength = memory.byteLength;
    this.space = space;
    this.owner = owner;
    this.#onClose = () => onClose(this);
  }

  get closed(): boolean {
    return this.#closed;
  }

  get address(): Address {
    this.#open();
    return this.memory.address;
  }

  get bytes(): Uint8Array {
    this.#open();
    return this.memory.bytes;
  }

  view(byteOffset: number, length: number): Uint8Array {
    this.#open();
    return this.memory.view(byteOffset, length);
  }

  tensor(type: TensorType, byteOffset = 0): MemoryTensor<S> {
    this.#open();
    return new MemoryTensor(type, this, byteOffset, checkPlace(type, byteOffset, this.byteLength));
  }

  /** Keeps the memory while an execution uses it, even if the buffer is closed meanwhile. */
  pin(): void {
    this.#open();
    this.#pins += 1;
  }

  unpin(): void {
    this.#pins -= 1;
    if (this.#closed && this.#pins === 0) this.memory.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    if (this.#pins === 0) this.memory.close();
  }

  #open(): void {
    if (this.#closed) throw new LockstepError("ENGINE_CLOSED", "This buffer was closed.");
  }
}

export class MemoryTensor<S extends Space = Space> implements DeviceTensor {
  readonly dtype: TensorType["dtype"];
  readonly shape: TensorType["shape"];
  readonly buffer: MemoryBuffer<S>;
  readonly byteOffset: number;
  readonly byteLength: number;
  #bytes: Uint8Array | undefined;

  constructor(type: TensorType, buffer: MemoryBuffer<S>, byteOffset: number, length: number) {
    this.dtype = type.dtype;
    this.shape = [...type.shape];
    this.buffer = buffer;
    this.byteOffset = byteOffset;
    this.byteLength = length;
  }

  get address(): Address {
    return this.buffer.address + BigInt(this.byteOffset);
  }

  get bytes(): Uint8Array {
    if (this.buffer.closed || this.#bytes === undefined) {
      this.#bytes = this.buffer.view(this.byteOffset, this.byteLength);
    }
    return this.#bytes;
  }
}
