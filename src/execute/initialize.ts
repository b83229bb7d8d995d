/**
 * Computes the first values of parameters and states, piece by piece, with graphs that write them
 * where they belong.
 */
import type { Device, DeviceBuffer, DeviceTensor, Executable } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import {
  type ElementRange,
  type Initializer,
  type InitialPiece,
  initialValue,
} from "../nn/index.ts";
import {
  byteLength,
  bytesPerElement,
  elementCount,
  formatType,
  sameType,
  type TensorType,
} from "../tensor/index.ts";
import { inLanes } from "./lanes.ts";

export interface Initialized {
  readonly name: string;
  readonly type: TensorType;
  readonly initializer: Initializer;
  readonly into: DeviceTensor;
  /**
   * The elements that are written; the others are not touched, and nothing is computed for pieces
   * that have none. Default: all.
   */
  readonly own?: readonly OwnRange[] | undefined;
}

/** Elements that are written, and where they lie in `into`. Default: at the same place. */
export interface OwnRange extends ElementRange {
  readonly at?: number;
}

/** Inputs of a piece lie in one buffer, at multiples of this. */
const ALIGNMENT = 64; // bytes

/**
 * Values depend only on the seed and on the name of each tensor. Each graph is compiled once.
 */
export async function initialize(
  device: Device,
  tensors: readonly Initialized[],
  seed: number,
): Promise<void> {
  const compiled = new Map<InitialPiece["graph"], Promise<Executable>>();
  const executableOf = (graph: InitialPiece["graph"]): Promise<Executable> => {
    const compiling = compiled.get(graph) ?? device.compile(graph, { threads: 1 });
    compiled.set(graph, compiling);
    return compiling;
  };
  const makeOne = async (item: Initialized): Promise<void> => {
    const value = initialValue(item, seed);
    if (value.kind === "tensor") {
      checkType(item, value.tensor);
      const bytes = bytesPerElement(item.type.dtype);
      for (const range of ownRanges(item)) {
        const part = value.tensor.bytes.subarray(range.start * bytes, range.end * bytes);
        device.upload(placeIn(item, range), part);
      }
      return;
    }
    for (const piece of value.pieces) {
      if (piece.parts.every((part) => overlaps(item, part).length === 0)) continue;
      await runPiece(device, await executableOf(piece.graph), piece, item);
    }
  };
  try {
    await inLanes(tensors, device.threads, makeOne);
  } finally {
    for (const executable of await Promise.allSettled(compiled.values())) {
      if (executable.status === "fulfilled") executable.value.close();
    }
  }
}

/** Writes a piece in place, or as far as it is this rank's out of a buffer of its own. */
async function runPiece(
  device: Device,
  executable: Executable,
  { inputs, parts }: InitialPiece,
  item: Initialized,
): Promise<void> {
  const { outputs } = executable.graph;
  const buffers: DeviceBuffer[] = [];
  const allocate = (bytes: number): DeviceBuffer => {
    const buffer = device.allocate(bytes);
    buffers.push(buffer);
    return buffer;
  };
  try {
    const given = Object.entries(inputs);
    const feeds = allocate(given.length * ALIGNMENT);
    const places = given.map(([name, tensor], index) => {
      const place = feeds.tensor(tensor, index * ALIGNMENT);
      device.upload(place, tensor.bytes);
      return [name, place] as const;
    });
    const made = parts.map((part) => {
      const type = vector(item.type, part);
      const own = overlaps(item, part).find(({ start, end }) => {
        return start === part.start && end === part.end;
      });
      return own === undefined ? allocate(byteLength(type)).tensor(type) : placeIn(item, own);
    });
    const binding = executable.bind({
      inputs: Object.fromEntries(places),
      outputs: Object.fromEntries(outputs.map((name, index) => [name, made[index]])) as Record<
        string,
        DeviceTensor
      >,
    });
    try {
      await binding.run();
    } finally {
      binding.close();
    }
    for (const [index, part] of parts.entries()) {
      const from = made[index] as DeviceTensor;
      if (from.buffer === item.into.buffer) continue;
      for (const range of overlaps(item, part)) {
        const within = { start: range.start - part.start, end: range.end - part.start };
        await device.copy(elements(from, within), placeIn(item, range));
      }
    }
  } finally {
    for (const buffer of buffers) buffer.close();
  }
}

/** A range of a tensor as a vector. */
function elements(
  { buffer, byteOffset, ...type }: DeviceTensor,
  range: ElementRange,
): DeviceTensor {
  const start = byteOffset + range.start * bytesPerElement(type.dtype);
  return buffer.tensor(vector(type, range), start);
}

function vector({ dtype }: TensorType, { start, end }: ElementRange): TensorType {
  return { dtype, shape: [end - start] };
}

/** Where a range of what is written lies. */
function placeIn({ into }: Initialized, { start, end, at = start }: OwnRange): DeviceTensor {
  return elements(into, { start: at, end: at + end - start });
}

function ownRanges({ type, own }: Initialized): readonly OwnRange[] {
  return own ?? [{ start: 0, end: elementCount(type.shape) }];
}

/** What of a part is written. */
function overlaps(item: Initialized, part: ElementRange): OwnRange[] {
  return ownRanges(item)
    .map(({ start, end, at = start }) => {
      const first = Math.max(start, part.start);
      return { start: first, end: Math.min(end, part.end), at: at + first - start };
    })
    .filter(({ start, end }) => start < end);
}

function checkType({ name, type }: Initialized, given: TensorType): void {
  if (sameType(type, given)) return;
  throw new LockstepError(
    "SHAPE_MISMATCH",
    `Parameter "${name}" is ${formatType(type)}, but its initial value is ${formatType(given)}.`,
  );
}
