/** Buffers of engines that compute on the CPU: memory of this process, and tensors as places in it. */
import { assert, LockstepError } from "../errors.ts";
import type { Address, Memory } from "../memory/index.ts";
import { byteLength, bytesPerElement, formatType, type TensorType } from "../tensor/index.ts";
import type { EngineBuffer, EngineTensor } from "./engine.ts";

export class MemoryBuffer implements EngineBuffer {
  readonly byteLength: number;
  readonly owner: object;
  readonly #memory: Memory;
  readonly #onClose: () => void;
  #pins = 0;
  #closed = false;

  /** `owner` is the engine that made it, and the only one that takes it. */
  constructor(memory: Memory, owner: object, onClose: (buffer: MemoryBuffer) => void) {
    this.#memory = memory;
    this.byteLength = memory.byteLength;
    this.owner = owner;
    this.#onClose = () => onClose(this);
  }

  get closed(): boolean {
    return this.#closed;
  }

  get address(): Address {
    this.#open();
    return this.#memory.address;
  }

  get bytes(): Uint8Array {
    this.#open();
    return this.#memory.bytes;
  }

  view(byteOffset: number, length: number): Uint8Array {
    this.#open();
    return this.#memory.view(byteOffset, length);
  }

  tensor(type: TensorType, byteOffset = 0): EngineTensor {
    this.#open();
    const length = byteLength(type);
    assert(byteOffset % bytesPerElement(type.dtype) === 0, `an aligned offset, not ${byteOffset}`);
    if (byteOffset < 0 || byteOffset + length > this.byteLength) {
      throw new LockstepError(
        "INVALID_BINDING",
        `A tensor ${formatType(type)} at byte ${byteOffset} does not fit a buffer of ${this.byteLength} bytes.`,
      );
    }
    return new MemoryTensor(type, this, byteOffset, length);
  }

  /** Keeps the memory while a run uses it, even if the buffer is closed meanwhile. */
  pin(): void {
    this.#open();
    this.#pins += 1;
  }

  unpin(): void {
    this.#pins -= 1;
    if (this.#closed && this.#pins === 0) this.#memory.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    if (this.#pins === 0) this.#memory.close();
  }

  #open(): void {
    if (this.#closed) throw new LockstepError("ENGINE_CLOSED", "This buffer was closed.");
  }
}

export class MemoryTensor implements EngineTensor {
  readonly dtype: TensorType["dtype"];
  readonly shape: TensorType["shape"];
  readonly buffer: MemoryBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  #bytes: Uint8Array | undefined;

  constructor(type: TensorType, buffer: MemoryBuffer, byteOffset: number, length: number) {
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
