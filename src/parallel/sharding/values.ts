/** The values of a graph and lists of placements, by small numbers, so that searches are short. */
import { type Graph, type Node, typeOf } from "../../graph/index.ts";
import { type AxisPlacement, isShard } from "../../mesh/index.ts";
import { byteLength } from "../../tensor/index.ts";

/** What is read by so many of the next nodes tells searches apart. */
const WINDOW = 48;

export class Values {
  readonly count: number;
  readonly #graph: Graph;
  readonly #ids = new Map<string, number>();
  /** The places of the nodes that read a value, ascending, by its number. */
  readonly #readers: number[][] = [];
  readonly #bytes = new Map<string, number>();

  /** @param nodes in the order in which they are decided */
  constructor(graph: Graph, nodes: readonly Node[]) {
    this.#graph = graph;
    for (const name of graph.types.keys()) {
      this.#ids.set(name, this.#readers.length);
      this.#readers.push([]);
    }
    this.count = this.#readers.length;
    for (const [index, { inputs }] of nodes.entries()) {
      for (const name of inputs) this.#readers[this.#ids.get(name) ?? -1]?.push(index);
    }
  }

  idOf(name: string): number {
    return this.#ids.get(name) as number;
  }

  bytesOf(name: string): number {
    const known = this.#bytes.get(name) ?? byteLength(typeOf(this.#graph, name));
    this.#bytes.set(name, known);
    return known;
  }

  /** Whether nothing behind this node reads a value. */
  isDone(name: string, index: number): boolean {
    return (this.#readers[this.idOf(name)]?.at(-1) ?? -1) <= index;
  }

  /** The values that are read by the next nodes behind this one. */
  readSoon(index: number): number[] {
    const soon: number[] = [];
    for (const [id, readers] of this.#readers.entries()) {
      const next = readers.find((at) => at > index);
      if (next !== undefined && next <= index + WINDOW) soon.push(id);
    }
    return soon;
  }
}

type On = AxisPlacement | undefined;

/** Lists of the placements in which a value is there. Number 0 is the empty list. */
export class Placements {
  readonly #lists: (readonly On[])[] = [[]];
  readonly #numbers = new Map<string, number>();

  of(list: number): readonly On[] {
    return this.#lists[list] as readonly On[];
  }

  /** The list with one placement more. */
  with(list: number, on: On): number {
    const key = `${list} ${isShard(on) ? `${on.shard} ${on.sections ?? ""}` : on}`;
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    this.#lists.push([...this.of(list), on]);
    this.#numbers.set(key, this.#lists.length - 1);
    return this.#lists.length - 1;
  }
}
