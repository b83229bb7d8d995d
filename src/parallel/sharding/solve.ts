/**
 * Finds how the ranks of an axis divide a graph: a division of each node, such that computing and
 * conversions together take little time. A beam search in the order of the nodes; of searches that
 * hold alike what is needed soon, the cheapest goes on. After Zheng et al., "Alpa", OSDI 2022 (its
 * intra-operator pass), which finds the same by integer programming.
 */
import { assert } from "../../errors.ts";
import { type Division, type Graph, type Node, typeOf } from "../../graph/index.ts";
import { type AxisPlacement, isSamePlacement, isShard } from "../../mesh/index.ts";
import { type DividedOver, divisionsOf } from "../../ops/index.ts";
import { byteLength } from "../../tensor/index.ts";
import { type RankSpeed, secondsOfConversion, secondsOfNode } from "./costs.ts";
import type { GraphDivision } from "./localize.ts";

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
  /** The number of searches that are kept. */
  readonly beam?: number;
}

export interface Solution {
  readonly division: GraphDivision;
  readonly seconds: number;
}

const BEAM = 16;
/** What is read by so many of the next nodes tells searches apart. */
const WINDOW = 48;

interface Decision {
  readonly node: Node;
  readonly division: Division;
  readonly before: Decision | undefined;
}

/** How far a search has come. */
interface State {
  readonly seconds: number;
  /** The placements in which each value is there. */
  readonly held: ReadonlyMap<string, readonly On[]>;
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
  /** The places of the nodes that read a value, ascending. */
  readonly #readers = new Map<string, number[]>();
  readonly #bytes = new Map<string, number>();
  readonly #outputs: ReadonlySet<string>;

  constructor(graph: Graph, options: SolveOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#nodes = justInTime(graph);
    for (const [index, { inputs }] of this.#nodes.entries()) {
      for (const name of inputs) {
        const readers = this.#readers.get(name);
        if (readers === undefined) this.#readers.set(name, [index]);
        else readers.push(index);
      }
    }
    this.#outputs = new Set(graph.outputs);
  }

  run(): Solution {
    const { beam = BEAM } = this.#options;
    const held = new Map<string, readonly On[]>();
    for (const name of this.#graph.constants.keys()) held.set(name, [undefined]);
    let states: State[] = [{ seconds: 0, held, inputs: new Map(), decided: undefined }];
    for (const [index, node] of this.#nodes.entries()) {
      const moves = this.#moves(node, states);
      moves.sort((a, b) => a.seconds - b.seconds);
      const own = new Set([...node.inputs, ...node.outputs]);
      const rests = new Map(states.map((state) => [state, this.#soonRead(state, own, index)]));
      const kept = new Map<string, Move>();
      for (const move of moves) {
        if (kept.size >= beam) break;
        const key = `${rests.get(move.from)}${this.#madeKey(move, node, index)}`;
        if (!kept.has(key)) kept.set(key, move);
      }
      states = [...kept.values()].map((move) => this.#after(move, node, index));
      assert(states.length > 0, `"${node.name}" can be computed whole by every rank`);
    }
    return this.#finished(states);
  }

  #moves(node: Node, states: readonly State[]): Move[] {
    const over = { ...this.#options.over, proportions: this.#proportionsAt(node, states) };
    const { ranks } = over;
    const { speed } = this.#options;
    return divisionsOf(this.#graph, node, over).flatMap((division): Move[] => {
      const own = secondsOfNode(this.#graph, node, division, ranks, speed);
      return states.flatMap((from): Move[] => {
        let seconds = from.seconds + own;
        const chosen: [string, On][] = [];
        const added: [string, On][] = [];
        for (const [index, name] of node.inputs.entries()) {
          if (name === "") continue;
          const to = division.inputs[index];
          const there = from.held.get(name) ?? this.#chosen(name, chosen);
          if (there === undefined) {
            const choice = this.#choiceOf(name, to);
            if (choice === undefined) return [];
            chosen.push([name, choice.on]);
            seconds += choice.seconds + this.#conversion(name, choice.on, to);
            if (!isSamePlacement(choice.on, to)) added.push([name, to]);
          } else if (!there.some((on) => isSamePlacement(on, to))) {
            seconds += this.#cheapest(name, there, to);
            added.push([name, to]);
          }
        }
        return [{ from, division, seconds, chosen, added }];
      });
    });
  }

  /** What this move has chosen already, where a node reads an input twice. */
  #chosen(name: string, chosen: readonly (readonly [string, On])[]): readonly On[] | undefined {
    const found = chosen.find(([own]) => own === name);
    return found && [found[1]];
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
    const { over, speed } = this.#options;
    return secondsOfConversion(this.#bytesOf(name), from, to, over.ranks, speed);
  }

  #bytesOf(name: string): number {
    const known = this.#bytes.get(name) ?? byteLength(typeOf(this.#graph, name));
    this.#bytes.set(name, known);
    return known;
  }

  /** The proportions that the graph has use for, and those in which inputs are there. */
  #proportionsAt(node: Node, states: readonly State[]): DividedOver["proportions"] {
    const found = new Map(this.#options.over.proportions.map((own) => [own.join(), own]));
    for (const { held } of states) {
      for (const name of node.inputs) {
        for (const on of held.get(name) ?? []) {
          if (!isShard(on) || on.sections === undefined) continue;
          const proportion = reduced(on.sections);
          found.set(proportion.join(), proportion);
        }
      }
    }
    return [...found.values()];
  }

  #after({ from, division, seconds, chosen, added }: Move, node: Node, index: number): State {
    const held = new Map(from.held);
    const inputs = chosen.length === 0 ? from.inputs : new Map([...from.inputs, ...chosen]);
    for (const [name, on] of chosen) held.set(name, [on]);
    for (const [name, on] of added) held.set(name, [...(held.get(name) ?? []), on]);
    let total = seconds;
    for (const [at, name] of node.outputs.entries()) {
      if (name === "") continue;
      const on = division.outputs[at];
      held.set(name, [on]);
      if (this.#outputs.has(name)) total += this.#conversion(name, on, this.#wanted(name, inputs));
    }
    for (const name of [...node.inputs, ...node.outputs]) {
      if ((this.#readers.get(name)?.at(-1) ?? -1) <= index) held.delete(name);
    }
    return { seconds: total, held, inputs, decided: { node, division, before: from.decided } };
  }

  /** Equal for searches that hold alike what is read soon, but for these values. */
  #soonRead({ held }: State, others: ReadonlySet<string>, index: number): string {
    let key = "";
    for (const [name, there] of held) {
      if (others.has(name) || !this.#isReadSoon(name, index)) continue;
      key += `${name}=${there.map(textOf).join("|")};`;
    }
    return key;
  }

  /** Equal for moves after which what a node reads and makes is held alike, if it is read soon. */
  #madeKey({ from, division, chosen, added }: Move, { inputs, outputs }: Node, index: number) {
    let key = "";
    for (const name of new Set(inputs)) {
      if (name === "" || !this.#isReadSoon(name, index)) continue;
      const there = [
        ...(from.held.get(name) ?? []),
        ...placed(chosen, name),
        ...placed(added, name),
      ];
      key += `${name}=${there.map(textOf).join("|")};`;
    }
    for (const [at, name] of outputs.entries()) {
      if (this.#isReadSoon(name, index)) key += `${name}=${textOf(division.outputs[at])};`;
    }
    return key;
  }

  #isReadSoon(name: string, index: number): boolean {
    const next = this.#readers.get(name)?.find((at) => at > index);
    return next !== undefined && next <= index + WINDOW;
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
    const { over } = this.#options;
    return { division: { over, nodes, inputs, outputs }, seconds: best.seconds };
  }
}

function textOf(on: On): string {
  return isShard(on) ? `${on.shard}${on.sections ?? ""}` : (on ?? "whole");
}

function placed(list: readonly (readonly [string, On])[], name: string): On[] {
  return list.flatMap(([own, on]) => (own === name ? [on] : []));
}

/** Sizes as small whole numbers of the same proportion. */
function reduced(sizes: readonly number[]): readonly number[] {
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
