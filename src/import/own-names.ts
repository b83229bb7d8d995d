/**
 * Restores the names that weights had before an exporter merged those with equal values: PyTorch's
 * older exporter keeps each other name as that of an Identity.
 */
import type { OnnxFile, RawTensor } from "../onnx/index.ts";
import { MADE_UP, moduleNames } from "./module-names.ts";
import { isUniform, moduleOf, type Read } from "./weights.ts";

export interface OwnNames {
  /** The initializer that has the values, by each other name. */
  readonly names: ReadonlyMap<string, string>;
  /** The reads, by the name of a weight. */
  readonly reads: ReadonlyMap<string, readonly Read[]>;
  /**
   * The names of weights in modules that seem to be called again (`act_1` after `act`), if no
   * weight of the file has the module's name.
   */
  readonly again: readonly string[];
}

/**
 * A weight that modules really share has only one name, so weights with names of their own are
 * separate weights; copies that the exporter made of one weight are not. `moduleOfNode` returns the
 * module of a node by its name.
 */
export function ownNames(
  file: OnnxFile,
  floats: ReadonlyMap<string, RawTensor>,
  moduleOfNode: (node: string) => string | undefined,
): OwnNames {
  const { graph, producerName } = file.model;
  const uniform = (name: string) => isUniform(file.tensor(floats.get(name) as RawTensor));
  const names = new Map<string, string>();
  const reads = new Map<string, Read[]>();
  const source = (name: string): string => names.get(name) ?? name;
  for (const { opType, input, output } of graph.node) {
    const from = source(input[0] ?? "");
    if (opType !== "Identity" || !floats.has(from)) continue;
    // Other tools than PyTorch may have tied them on purpose, unless all their elements are equal.
    if (producerName === "pytorch" || uniform(from)) names.set(output[0] ?? "", from);
  }
  const modules = moduleNames(graph, floats, names);
  const scopes = new Map<string, string | undefined>();
  // By initializer and name in the module: the first read. A module that is called again has the
  // same weight, under a made-up name.
  const firsts = new Map<string, string>();
  const again = new Set<string>();
  const firstOf = (read: string, initializer: string): string | undefined => {
    const name = modules.get(read)?.name;
    if (name === undefined || !MADE_UP.test(read)) return undefined;
    const own = `${initializer}\n${name}`;
    const base = `${initializer}\n${calledFirst(name)}`;
    if (!firsts.has(own) && firsts.has(base)) again.add(name);
    const first = firsts.get(own) ?? firsts.get(base) ?? read;
    firsts.set(own, first);
    return first;
  };
  const isCopy = (read: string, initializer: string, module: string | undefined): boolean => {
    if (read === initializer || !MADE_UP.test(read)) return false;
    const [one, other] = [modules.get(read)?.name, modules.get(initializer)?.name];
    if (one !== undefined || other !== undefined) return one === other;
    // Weights without a name whose elements differ are one weight; equal initial values are so
    // within one module only.
    return !uniform(initializer) || scopes.get(initializer) === module;
  };
  for (const [node, { name, input, opType, output }] of graph.node.entries()) {
    if (opType === "Identity" && names.has(output[0] ?? "")) continue;
    const reading = input.some((read) => floats.has(source(read)));
    const module = reading ? moduleOfNode(name) : undefined;
    for (const [index, read] of input.entries()) {
      const initializer = source(read);
      if (!floats.has(initializer)) continue;
      if (read === initializer) scopes.set(read, module);
      // Those of recurrent layers are assigned by their layers (`recurrent.ts`).
      const first = (!RECURRENT.test(opType) && firstOf(read, initializer)) || read;
      const own = isCopy(read, initializer, module) ? initializer : first;
      reads.set(own, [...(reads.get(own) ?? []), { node, input: index, initializer }]);
    }
  }
  return { names, reads, again: [...again] };
}

const RECURRENT = /^(LSTM|GRU|RNN)$/;

/** The name in the module's first call: `encoder.act_1.weight` → `encoder.act.weight`. */
function calledFirst(name: string): string {
  const module = moduleOf(name);
  return module.replace(/_\d+$/, "") + name.slice(module.length);
}
