/**
 * Finds how the ranks of an axis divide a graph: a division of each node, such that computing and
 * conversions together take little time. A beam search in the order of the nodes; of searches that
 * hold alike what is needed soon, the cheapest goes on. After Zheng et al., "Alpa", OSDI 2022 (its
 * intra-operator pass), which finds the same by integer programming.
 */
import { assert } from "../../errors.ts";
import { type Division, type Graph, type Node, typeOf } from "../../graph/index.ts";
import { type AxisPlacement, isSamePlacement, isShard } from "../../mesh/index.ts";
import type { DividedOver } from "../../ops/index.ts";
import { isFloat } from "../../tensor/index.ts";
import { secondsOfConversion } from "./costs.ts";
import { nodesBehind } from "./follow.ts";
import type { GraphDivision } from "./localize.ts";
import { Placements, type Slots } from "./values.ts";
import type { Work } from "./work.ts";

type On = AxisPlacement | undefined;

/** An input whose placement is to be chosen. */
export interface Choice {
  readonly on: On;
  /** What it costs to hold it so. */
  readonly seconds: number;
}

export interface SolveOptions {
  readonly over: DividedOver;
  /** The ways in which inputs may be held. Those of one choice are given. */
  readonly inputs: ReadonlyMap<string, readonly Choice[]>;
  /** How outputs are to be held: as stated, or as an input is. Default: replicated. */
  readonly outputs: ReadonlyMap<string, { readonly on: On } | { readonly like: string }>;
  /** Inputs with which all work is to be divided, whatever time that takes. Default: none. */
  readonly divided?: ReadonlySet<string>;
  /** Values of which every rank can make the whole again, and the nodes that make them. */
  readonly views?: ReadonlyMap<string, Node>;
  /**
   * Which divisions are thought of, beside the one that divides nothing. It follows from the graph and
   * the inputs. Default: all.
   */
  readonly allows?: (node: Node, division: Division) => boolean;
  /** The number of searches that are kept. */
  readonly beam?: number;
}

export interface Solution {
  readonly division: GraphDivision;
  readonly seconds: number;
  /** The part of all operations that ranks share, instead of each making all of them. */
  readonly shared: number;
}

const BEAM = 16;

/** The seconds that an operation counts which all ranks make, though it is to be divided. */
const SECONDS_PER_REPEATED_FLOP = 1e-6;

interface Decision {
  readonly node: Node;
  readonly division: Division;
  readonly before: Decision | undefined;
}

/** How far a search has come. */
interface State {
  readonly seconds: number;
  /** By slot: in which placements its value is there; 0: it is not, or not needed any more. */
  readonly held: Uint16Array;
  readonly inputs: ReadonlyMap<string, On>;
  readonly decided: Decision | undefined;
}

/** How the inputs of a node come to be there as it reads them. */
interface Brought {
  readonly seconds: number;
  /** What is chosen of inputs. */
  readonly chosen: readonly (readonly [string, On])[];
  /** What values are there in further placements. */
  readonly added: readonly (readonly [string, On])[];
}

/** A state's next step. */
interface Move {
  readonly from: State;
  readonly division: Division;
  readonly brought: Brought;
  /** Of all that is decided then. */
  readonly seconds: number;
}

export function solve(work: Work, options: SolveOptions): Solution {
  return new Search(work, options).run();
}

class Search {
  readonly #work: Work;
  readonly #graph: Graph;
  readonly #options: SolveOptions;
  readonly #lists = new Placements();
  /** Arrays for what states hold: those of the states of one node are written again two nodes on. */
  readonly #arrays: readonly [Uint16Array[], Uint16Array[]] = [[], []];
  readonly #outputs: ReadonlySet<string>;
  /** Nodes that need inputs whose work is to be divided. */
  readonly #toDivide: ReadonlySet<Node>;
  /** What these nodes make, but for whole numbers, of which all ranks may have all. */
  readonly #brought: ReadonlySet<string>;

  constructor(work: Work, options: SolveOptions) {
    const { graph } = work;
    this.#work = work;
    this.#graph = graph;
    this.#options = options;
    this.#outputs = new Set(graph.outputs);
    this.#toDivide = nodesBehind(graph, options.divided ?? new Set());
    const made = [...this.#toDivide].flatMap(({ outputs }) => outputs);
    this.#brought = new Set(
      made.filter((name) => name !== "" && isFloat(typeOf(graph, name).dtype)),
    );
  }

  run(): Solution {
    const { beam = BEAM } = this.#options;
    const { nodes, values } = this.#work;
    const held = new Uint16Array(values.count);
    for (const slot of values.constants) held[slot] = this.#lists.with(0, undefined);
    let states: State[] = [{ seconds: 0, held, inputs: new Map(), decided: undefined }];
    for (const [index, node] of nodes.entries()) {
      const slots = values.slots[index] as Slots;
      const moves = this.#moves(node, slots, states);
      moves.sort((a, b) => a.seconds - b.seconds);
      const arrays = this.#arrays[index % 2] as Uint16Array[];
      const kept = new Map<string, State>();
      for (const move of moves) {
        if (kept.size >= beam) break;
        const held = (arrays[kept.size] ??= new Uint16Array(values.count));
        this.#holdAfter(move, node, slots, held);
        const key = keyOf(held, slots.soon);
        if (!kept.has(key)) kept.set(key, this.#after(move, node, held));
      }
      states = [...kept.values()];
      assert(states.length > 0, `"${node.name}" can be computed whole by every rank`);
    }
    return this.#finished(states);
  }

  #moves(node: Node, slots: Slots, states: readonly State[]): Move[] {
    // States that hold the node's inputs alike have the same steps before them.
    const alike = new Map<string, { readonly lists: readonly number[]; readonly of: State[] }>();
    for (const state of states) {
      const lists = slots.inputs.map((slot) => (slot === undefined ? 0 : (state.held[slot] ?? 0)));
      const key = lists.join();
      const known = alike.get(key) ?? { lists, of: [] };
      known.of.push(state);
      alike.set(key, known);
    }
    const lists = [...alike.values()].flatMap((own) => own.lists);
    const over = { ...this.#options.over, proportions: this.#proportionsIn(lists) };
    const { allows = () => true } = this.#options;
    return this.#work.divisionsOf(node, over).flatMap(({ division, seconds }, way): Move[] => {
      if (way > 0 && !allows(node, division)) return [];
      const repeated = this.#toDivide.has(node) && division.outputs.every((on) => !on);
      const own = seconds + (repeated ? this.#work.flopsOf(node) * SECONDS_PER_REPEATED_FLOP : 0);
      return [...alike.values()].flatMap(({ lists, of }) => {
        const brought = this.#brings(node, division, lists);
        if (brought === undefined) return [];
        return of.map((from) => {
          const seconds = from.seconds + own + brought.seconds;
          return { from, division, brought, seconds };
        });
      });
    });
  }

  /**
   * What brings the inputs of a node into the placements of a division.
   * @param lists the placements in which each input is there
   * @returns undefined if an input cannot be held so
   */
  #brings(node: Node, division: Division, lists: readonly number[]): Brought | undefined {
    let seconds = 0;
    const chosen: [string, On][] = [];
    const added: [string, On][] = [];
    for (const [index, name] of node.inputs.entries()) {
      if (name === "") continue;
      const to = division.inputs[index];
      const list = lists[index] as number;
      const there =
        list === 0 ? chosen.find(([input]) => input === name)?.slice(1) : this.#lists.of(list);
      if (there === undefined) {
        const choice = this.#choiceOf(name, to);
        if (choice === undefined) return undefined;
        chosen.push([name, choice.on]);
        seconds += choice.seconds + this.#conversion(name, choice.on, to);
        if (!isSamePlacement(choice.on, to)) added.push([name, to]);
      } else if (!(there as readonly On[]).some((on) => isSamePlacement(on, to))) {
        seconds += this.#cheapest(name, there as readonly On[], to);
        added.push([name, to]);
      }
    }
    return { seconds, chosen, added };
  }

  /** The cheapest way to hold an input that is read in this way first. */
  #choiceOf(name: string, to: On): Choice | undefined {
    const choices = this.#options.inputs.get(name) ?? [{ on: undefined, seconds: 0 }];
    const total = (choice: Choice) => choice.seconds + this.#conversion(name, choice.on, to);
    return choices.reduce<Choice | undefined>(
      (best, choice) => (best === undefined || total(choice) < total(best) ? choice : best),
      undefined,
    );
  }

  #cheapest(name: string, there: readonly On[], to: On): number {
    return Math.min(...there.map((on) => this.#conversion(name, on, to)));
  }

  #conversion(name: string, from: On, to: On): number {
    const { over, views } = this.#options;
    const { speed } = this.#work;
    if (to === undefined && views?.has(name) === true) return 0;
    // What was brought together is not taken apart again: it would soon be sent a second time.
    const again = from === undefined && isShard(to) && this.#brought.has(name);
    const own = secondsOfConversion(this.#work.values.bytesOf(name), from, to, over.ranks, speed);
    return own + (again ? speed.link.latency : 0);
  }

  /** The proportions that the graph has use for, and those in which inputs are there. */
  #proportionsIn(lists: readonly number[]): DividedOver["proportions"] {
    const found = new Map(this.#options.over.proportions.map((own) => [own.join(), own]));
    for (const on of [...new Set(lists)].flatMap((list) => this.#lists.of(list))) {
      if (!isShard(on) || on.sections === undefined) continue;
      const proportion = reduced(on.sections);
      found.set(proportion.join(), proportion);
    }
    return [...found.values()];
  }

  #holdAfter({ from, division, brought }: Move, node: Node, slots: Slots, held: Uint16Array): void {
    held.set(from.held);
    for (const [name, on] of [...brought.chosen, ...brought.added]) {
      const slot = slots.inputs[node.inputs.indexOf(name)] as number;
      held[slot] = this.#lists.with(held[slot] as number, on);
    }
    for (const [at, slot] of slots.outputs.entries()) {
      if (slot !== undefined) held[slot] = this.#lists.with(0, division.outputs[at]);
    }
    for (const slot of slots.done) held[slot] = 0;
  }

  #after({ from, division, brought, seconds }: Move, node: Node, held: Uint16Array): State {
    const { chosen } = brought;
    const inputs = chosen.length === 0 ? from.inputs : new Map([...from.inputs, ...chosen]);
    let total = seconds;
    for (const [at, name] of node.outputs.entries()) {
      if (!this.#outputs.has(name)) continue;
      total += this.#conversion(name, division.outputs[at], this.#wanted(name, inputs));
    }
    return { seconds: total, held, inputs, decided: { node, division, before: from.decided } };
  }

  #wanted(output: string, inputs: ReadonlyMap<string, On>): On {
    const wish = this.#options.outputs.get(output);
    if (wish === undefined) return undefined;
    return "like" in wish ? inputs.get(wish.like) : wish.on;
  }

  #finished(states: readonly State[]): Solution {
    const [best] = states.toSorted((a, b) => a.seconds - b.seconds) as [State];
    const nodes = new Map<Node, Division>();
    for (let at = best.decided; at !== undefined; at = at.before) nodes.set(at.node, at.division);
    const inputs = new Map(
      this.#graph.inputs.map((name) => {
        const [first] = this.#options.inputs.get(name) ?? [];
        return [name, best.inputs.has(name) ? best.inputs.get(name) : first?.on] as const;
      }),
    );
    const outputs = new Map(
      this.#graph.outputs.map((name) => [name, this.#wanted(name, inputs)] as const),
    );
    const { over, views = new Map() } = this.#options;
    const shared = this.#shared(nodes);
    return { division: { over, nodes, inputs, outputs, views }, seconds: best.seconds, shared };
  }

  #shared(nodes: ReadonlyMap<Node, Division>): number {
    let [shared, all] = [0, 0];
    for (const [node, { inputs, outputs }] of nodes) {
      const flops = this.#work.flopsOf(node);
      all += flops;
      if ([...inputs, ...outputs].some(isShard)) shared += flops;
    }
    return all === 0 ? 0 : shared / all;
  }
}

/** Sizes as small whole numbers of the same proportion. */
export function reduced(sizes: readonly number[]): readonly number[] {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  const common = sizes.reduce(divisor, 0);
  return sizes.map((size) => size / common);
}

/** What slots hold, as a text. */
function keyOf(held: Uint16Array, slots: readonly number[]): string {
  let key = "";
  for (const slot of slots) key += String.fromCharCode(held[slot] as number);
  return key;
}
