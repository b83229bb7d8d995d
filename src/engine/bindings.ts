/** What every engine checks before a run: each input and output has a tensor of its type, and none overlap wrongly. */
import { LockstepError } from "../errors.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { formatType, sameType } from "../tensor/index.ts";
import { MemoryTensor } from "./buffer.ts";
import type { Bindings, EngineTensor } from "./engine.ts";

export interface CheckedBindings {
  /** In the order of the graph's inputs. */
  readonly inputs: readonly MemoryTensor[];
  readonly outputs: readonly MemoryTensor[];
}

/** Throws INVALID_BINDING, SHAPE_MISMATCH or TYPE_MISMATCH with the name of the first that does not fit. */
export function checkBindings(
  graph: Graph,
  bindings: Bindings,
  owner: object,
  mayAlias: (output: string, input: string) => boolean,
): CheckedBindings {
  const inputs = pick(graph, "input", graph.inputs, bindings.inputs, owner);
  const outputs = pick(graph, "output", graph.outputs, bindings.outputs, owner);
  checkOverlap(graph, inputs, outputs, mayAlias);
  return { inputs, outputs };
}

function pick(
  graph: Graph,
  role: string,
  names: readonly string[],
  given: Readonly<Record<string, EngineTensor>>,
  owner: object,
): MemoryTensor[] {
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
    if (!(tensor instanceof MemoryTensor) || tensor.buffer.owner !== owner) {
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

/** Outputs share no byte with each other, and with an input only where that is allowed. */
function checkOverlap(
  graph: Graph,
  inputs: readonly MemoryTensor[],
  outputs: readonly MemoryTensor[],
  mayAlias: (output: string, input: string) => boolean,
): void {
  const placesOf = (tensors: readonly MemoryTensor[], names: readonly string[], output: boolean) =>
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
      if (same && input.output && input.name === output.name) continue; // one value, listed twice
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
