/** The values of a graph and lists of placements, by small numbers, so that searches are short. */
import { type Graph, type Node, typeOf } from "../../graph/index.ts";
import { type AxisPlacement, isShard } from "../../mesh/index.ts";
import { byteLength } from "../../tensor/index.ts";

/** What is read by so many of the next nodes tells searches apart. */
const WINDOW = 48;

/** Where a node finds its values. An omitted one has no slot. */
export interface Slots {
  readonly inputs: readonly (number | undefined)[];
  readonly outputs: readonly (number | undefined)[];
  /** The slots of values that nothing behind the node reads. */
  readonly done: readonly number[];
  /** The slots of values that the next nodes behind it read. */
  readonly soon: readonly number[];
}

/**
 * A slot for each value, from the first node that makes or reads it to the last one that reads it.
 * Values that are never there at once have the same slot. Constants are there from the beginning.
 */
export class Values {
  /** The number of slots. */
  readonly count: number;
  /** The slots of constants. */
  readonly constants: readonly number[];
  /** In the order in which nodes are decided. */
  readonly slots: readonly Slots[];
  readonly #graph: Graph;
  readonly #bytes = new Map<string, number>();

  /** @param nodes in the order in which they are decided */
  constructor(graph: Graph, nodes: readonly Node[]) {
    this.#graph = graph;
    const readers = readersOf(nodes);
    const free: number[] = [];
    const live = new Map<string, number>();
    let count = 0;
    const slotOf = (name: string) => {
      const known = live.get(name);
      if (known !== undefined) return known;
      const slot = free.pop() ?? count++;
      live.set(name, slot);
      return slot;
    };
    const slotsOf = (names: readonly string[]) =>
      names.map((name) => (name === "" ? undefined : slotOf(name)));
    const read = [...graph.constants.keys()].filter((name) => readers.has(name));
    this.constants = read.map(slotOf);
    this.slots = nodes.map((node, index): Slots => {
      const [inputs, outputs] = [slotsOf(node.inputs), slotsOf(node.outputs)];
      const done = [...new Set([...node.inputs, ...node.outputs])]
        .filter((name) => name !== "" && (readers.get(name)?.at(-1) ?? -1) <= index)
        .map((name) => {
          const slot = slotOf(name);
          live.delete(name);
          free.push(slot);
          return slot;
        });
      const next = nodes.slice(index + 1, index + 1 + WINDOW).flatMap((own) => own.inputs);
      const soon = [...new Set(next)].flatMap((name) => live.get(name) ?? []);
      return { inputs, outputs, done, soon };
    });
    this.count = count;
  }

  bytesOf(name: string): number {
    const known = this.#bytes.get(name) ?? byteLength(typeOf(this.#graph, name));
    this.#bytes.set(name, known);
    return known;
  }
}

/** By value: the places of the nodes that read it, ascending. */
function readersOf(nodes: readonly Node[]): ReadonlyMap<string, readonly number[]> {
  const readers = new Map<string, number[]>();
  for (const [index, { inputs }] of nodes.entries()) {
    for (const name of inputs) {
      const own = readers.get(name) ?? [];
      own.push(index);
      readers.set(name, own);
    }
  }
  return readers;
}

type On = AxisPlacement | undefined;

/** Lists of the placements in which a value is there. Number 0 is the empty list. */
export class Placements {
  readonly #lists: (readonly On[])[] = [[]];
  /** By list: the list with one placement more. */
  readonly #longer: Map<string, number>[] = [new Map()];
  readonly #texts = new WeakMap<object, string>();

  of(list: number): readonly On[] {
    return this.#lists[list] as readonly On[];
  }

  /** The list with one placement more. */
  with(list: number, on: On): number {
    const longer = this.#longer[list] as Map<string, number>;
    const text = this.#textOf(on);
    const known = longer.get(text);
    if (known !== undefined) return known;
    this.#lists.push([...this.of(list), on]);
    this.#longer.push(new Map());
    longer.set(text, this.#lists.length - 1);
    return this.#lists.length - 1;
  }

  #textOf(on: On): string {
    if (!isShard(on)) return on ?? "";
    let text = this.#texts.get(on);
    if (text === undefined) {
      text = `${on.shard} ${on.sections ?? ""}`;
      this.#texts.set(on, text);
    }
    return text;
  }
}
