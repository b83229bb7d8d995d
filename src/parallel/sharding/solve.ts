/**
 * Finds how the ranks of an axis divide a graph: a division of each node, such that computing and
 * conversions together take little time. A beam search in the order of the nodes; of searches that
 * hold alike what is needed soon, the cheapest goes on. After Zheng et al., "Alpa", OSDI 2022 (its
 * intra-operator pass), which finds the same by integer programming.
 */
import { assert } from "../../errors.ts";
import { type Division, type Graph, type Node, typeOf } from "../../graph/index.ts";
import { type AxisPlacement, isSamePlacement, isShard } from "../../mesh/index.ts";
import { type DividedOver, divisionsOf, flopsOfNode } from "../../ops/index.ts";
import { isFloat } from "../../tensor/index.ts";
import { type RankSpeed, secondsOfConversion, secondsOfNode } from "./costs.ts";
import { nodesBehind } from "./follow.ts";
import type { GraphDivision } from "./localize.ts";
import { Placements, Values } from "./values.ts";

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
  readonly speed: RankSpeed;
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
  /** By value: in which placements it is there; 0: it is not, or not needed any more. */
  readonly held: Uint16Array;
  readonly inputs: ReadonlyMap<string, On>;
  readonly decided: Decision | undefined;
}

/** A state's next step. */
interface Move {
  readonly from: State;
  readonly division: Division;
  readonly seconds: number;
  /** What is chosen of inputs. */
  readonly chosen: readonly (readonly [string, On])[];
  /** What values are there in further placements. */
  readonly added: readonly (readonly [string, On])[];
}

export function solve(graph: Graph, options: SolveOptions): Solution {
  return new Search(graph, options).run();
}

class Search {
  readonly #graph: Graph;
  readonly #options: SolveOptions;
  readonly #nodes: readonly Node[];
  readonly #values: Values;
  readonly #lists = new Placements();
  readonly #outputs: ReadonlySet<string>;
  /** Nodes that need inputs whose work is to be divided. */
  readonly #toDivide: ReadonlySet<Node>;
  /** What these nodes make, but for whole numbers, of which all ranks may have all. */
  readonly #brought: ReadonlySet<string>;

  constructor(graph: Graph, options: SolveOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#nodes = justInTime(graph);
    this.#values = new Values(graph, this.#nodes);
    this.#outputs = new Set(graph.outputs);
    this.#toDivide = nodesBehind(graph, options.divided ?? new Set());
    const made = [...this.#toDivide].flatMap(({ outputs }) => outputs);
    this.#brought = new Set(
      made.filter((name) => name !== "" && isFloat(typeOf(graph, name).dtype)),
    );
  }

  run(): Solution {
    const { beam = BEAM } = this.#options;
    const held = new Uint16Array(this.#values.count);
    for (const name of this.#graph.constants.keys()) {
      held[this.#values.idOf(name)] = this.#lists.with(0, undefined);
    }
    let states: State[] = [{ seconds: 0, held, inputs: new Map(), decided: undefined }];
    for (const [index, node] of this.#nodes.entries()) {
      const moves = this.#moves(node, states);
      moves.sort((a, b) => a.seconds - b.seconds);
      const soon = this.#values.readSoon(index);
      const kept = new Map<string, State>();
      for (const move of moves) {
        if (kept.size >= beam) break;
        const next = this.#after(move, node, index);
        const key = String.fromCharCode(...soon.map((id) => next.held[id] as number));
        if (!kept.has(key)) kept.set(key, next);
      }
      states = [...kept.values()];
      assert(states.length > 0, `"${node.name}" can be computed whole by every rank`);
    }
    return this.#finished(states);
  }

  #moves(node: Node, states: readonly State[]): Move[] {
    const over = { ...this.#options.over, proportions: this.#proportionsAt(node, states) };
    const { speed, allows = () => true } = this.#options;
    return divisionsOf(this.#graph, node, over).flatMap((division, way): Move[] => {
      if (way > 0 && !allows(node, division)) return [];
      const repeated = this.#toDivide.has(node) && division.outputs.every((on) => !on);
      const own =
        secondsOfNode(this.#graph, node, division, over.ranks, speed) +
        (repeated ? flopsOfNode(this.#graph, node) * SECONDS_PER_REPEATED_FLOP : 0);
      return states.flatMap((from) => this.#move(node, from, division, own) ?? []);
    });
  }

  #move(node: Node, from: State, division: Division, own: number): Move | undefined {
    let seconds = from.seconds + own;
    const chosen: [string, On][] = [];
    const added: [string, On][] = [];
    for (const [index, name] of node.inputs.entries()) {
      if (name === "") continue;
      const to = division.inputs[index];
      const list = from.held[this.#values.idOf(name)] as number;
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
    return { from, division, seconds, chosen, added };
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
    const { over, speed, views } = this.#options;
    if (to === undefined && views?.has(name) === true) return 0;
    // What was brought together is not taken apart again: it would soon be sent a second time.
    const again = from === undefined && isShard(to) && this.#brought.has(name);
    const own = secondsOfConversion(this.#values.bytesOf(name), from, to, over.ranks, speed);
    return own + (again ? speed.link.latency : 0);
  }

  /** The proportions that the graph has use for, and those in which inputs are there. */
  #proportionsAt(node: Node, states: readonly State[]): DividedOver["proportions"] {
    const found = new Map(this.#options.over.proportions.map((own) => [own.join(), own]));
    const lists = new Set(
      node.inputs
        .filter((name) => name !== "")
        .flatMap((name) => states.map(({ held }) => held[this.#values.idOf(name)] as number)),
    );
    for (const on of [...lists].flatMap((list) => this.#lists.of(list))) {
      if (!isShard(on) || on.sections === undefined) continue;
      const proportion = reduced(on.sections);
      found.set(proportion.join(), proportion);
    }
    return [...found.values()];
  }

  #after({ from, division, seconds, chosen, added }: Move, node: Node, index: number): State {
    const held = from.held.slice();
    const inputs = chosen.length === 0 ? from.inputs : new Map([...from.inputs, ...chosen]);
    for (const [name, on] of [...chosen, ...added]) {
      const id = this.#values.idOf(name);
      held[id] = this.#lists.with(held[id] as number, on);
    }
    let total = seconds;
    for (const [at, name] of node.outputs.entries()) {
      if (name === "") continue;
      const on = division.outputs[at];
      held[this.#values.idOf(name)] = this.#lists.with(0, on);
      if (this.#outputs.has(name)) total += this.#conversion(name, on, this.#wanted(name, inputs));
    }
    for (const name of [...node.inputs, ...node.outputs]) {
      if (name !== "" && this.#values.isDone(name, index)) held[this.#values.idOf(name)] = 0;
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
      const flops = flopsOfNode(this.#graph, node);
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

/** The nodes of a graph, each just before the first one that needs it. */
function justInTime({ nodes, outputs }: Graph): readonly Node[] {
  const made = new Set(outputs);
  const needed = new Map<string, number>();
  const place = new Map<Node, number>();
  for (const [index, node] of [...nodes.entries()].reverse()) {
    const first = Math.min(...node.outputs.map((name) => needed.get(name) ?? index));
    const at = node.outputs.some((name) => made.has(name)) ? Math.min(index, first) : first;
    place.set(node, at - 1e-6);
    for (const name of node.inputs) needed.set(name, Math.min(at - 1e-6, needed.get(name) ?? at));
  }
  const order = new Map(nodes.map((node, index) => [node, index]));
  const at = (node: Node) => place.get(node) as number;
  return nodes.toSorted((a, b) => at(a) - at(b) || (order.get(a) ?? 0) - (order.get(b) ?? 0));
}
