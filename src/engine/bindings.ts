/**
 * The checks of every device. Before an execution: each input and output has a tensor of its type,
 * and none overlap wrongly. Before a transfer: the number of bytes is that of the tensor.
 */
import { assert, LockstepError } from "../errors.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import {
  byteLength,
  bytesPerElement,
  formatType,
  sameType,
  type TensorType,
} from "../tensor/index.ts";
import type { Bindings, DeviceTensor } from "./engine.ts";

/** A tensor of the device that checks. `address` only serves to tell which tensors overlap. */
export interface Placed extends DeviceTensor {
  readonly address: bigint;
  readonly byteLength: number;
}

export interface CheckedBindings<T extends Placed> {
  /** The tensors in the order of the graph's inputs. */
  readonly inputs: readonly T[];
  readonly outputs: readonly T[];
}

export interface BindingRules<T extends Placed> {
  /** Whether the device that checks has made the tensor. */
  readonly isOwn: (tensor: DeviceTensor) => tensor is T;
  readonly mayAlias: (output: string, input: string) => boolean;
}

/**
 * Throws INVALID_BINDING, SHAPE_MISMATCH or TYPE_MISMATCH with the name of the first tensor that
 * does not fit.
 */
export function checkBindings<T extends Placed>(
  graph: Graph,
  bindings: Bindings,
  { isOwn, mayAlias }: BindingRules<T>,
): CheckedBindings<T> {
  const inputs = pick(graph, "input", graph.inputs, bindings.inputs, isOwn);
  const outputs = pick(graph, "output", graph.outputs, bindings.outputs, isOwn);
  checkOverlap(graph, inputs, outputs, mayAlias);
  return { inputs, outputs };
}

/**
 * The length in bytes of a tensor at `byteOffset` of a buffer of `available` bytes. Throws
 * INVALID_BINDING if it does not fit.
 */
export function checkPlace(type: TensorType, byteOffset: number, available: number): number {
  const length = byteLength(type);
  assert(byteOffset % bytesPerElement(type.dtype) === 0, `an aligned offset, not ${byteOffset}`);
  if (byteOffset >= 0 && byteOffset + length <= available) return length;
  throw new LockstepError(
    "INVALID_BINDING",
    `A tensor ${formatType(type)} at byte ${byteOffset} does not fit a buffer of ${available} bytes.`,
  );
}

/** Throws SHAPE_MISMATCH unless `byteCount` is the number of bytes of the tensor. */
export function checkTransfer(type: TensorType, byteCount: number): void {
  if (byteCount === byteLength(type)) return;
  throw new LockstepError(
    "SHAPE_MISMATCH",
    `A tensor ${formatType(type)} holds ${byteLength(type)} bytes, and ${byteCount} were given for it.`,
  );
}

/** Throws INVALID_BINDING if another device has made the tensor. */
export function checkOwn<T extends DeviceTensor>(
  tensor: DeviceTensor,
  isOwn: (tensor: DeviceTensor) => tensor is T,
): T {
  if (isOwn(tensor)) return tensor;
  throw new LockstepError(
    "INVALID_BINDING",
    `The tensor ${formatType(tensor)} lies in memory of another device.`,
    { hint: "Download it from that device, and upload it to this one." },
  );
}

function pick<T extends Placed>(
  graph: Graph,
  role: string,
  names: readonly string[],
  given: Readonly<Record<string, DeviceTensor>>,
  isOwn: (tensor: DeviceTensor) => tensor is T,
): T[] {
  for (const name of Object.keys(given)) {
    if (!names.includes(name))
      fail(graph, `has no ${role} "${name}"`, `It has: ${names.join(", ")}.`);
  }
  return names.map((name) => {
    const tensor = Object.hasOwn(given, name) ? given[name] : undefined;
    if (tensor === undefined) return fail(graph, `${role} "${name}" was given no tensor`);
    const type = typeOf(graph, name);
    if (!sameType(tensor, type)) {
      throw new LockstepError(
        tensor.dtype === type.dtype ? "SHAPE_MISMATCH" : "TYPE_MISMATCH",
        `Graph "${graph.name}": ${role} "${name}" is ${formatType(type)}, got ${formatType(tensor)}.`,
        { fields: { graph: graph.name, name } },
      );
    }
    if (!isOwn(tensor)) {
      return fail(graph, `${role} "${name}" was given a tensor of another engine`);
    }
    return tensor;
  });
}

interface Place {
  readonly start: bigint;
  readonly end: bigint;
  readonly name: string;
  readonly output: boolean;
}

/**
 * Checks that outputs share no byte with each other, and with an input only where that is allowed.
 */
function checkOverlap(
  graph: Graph,
  inputs: readonly Placed[],
  outputs: readonly Placed[],
  mayAlias: (output: string, input: string) => boolean,
): void {
  const placesOf = (tensors: readonly Placed[], names: readonly string[], output: boolean) =>
    tensors.map((tensor, index): Place => {
      const start = tensor.address;
      return { start, end: start + BigInt(tensor.byteLength), name: names[index] ?? "", output };
    });
  const places = [
    ...placesOf(inputs, graph.inputs, false),
    ...placesOf(outputs, graph.outputs, true),
  ].filter(({ start, end }) => end > start);
  places.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));

  let open: Place[] = [];
  for (const place of places) {
    open = open.filter(({ end }) => end > place.start);
    for (const other of open) {
      if (!place.output && !other.output) continue;
      const same = place.start === other.start && place.end === other.end;
      const [output, input] = place.output ? [place, other] : [other, place];
      if (same && input.output && input.name === output.name) continue; // the same value
      if (same && !input.output && mayAlias(output.name, input.name)) continue;
      fail(
        graph,
        `output "${output.name}" overlaps ${input.output ? "output" : "input"} "${input.name}"`,
        "Only the very tensor of an input may be an output, and only where mayAlias allows it.",
      );
    }
    open.push(place);
  }
}

function fail(graph: Graph, what: string, hint?: string): never {
  throw new LockstepError("INVALID_BINDING", `Graph "${graph.name}": ${what}.`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { graph: graph.name },
  });
}
