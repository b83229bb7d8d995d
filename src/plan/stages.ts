/**
 * Cuts a forward and backward pass into the stages of a pipeline: stages that take about equally
 * long, cut where few bytes cross.
 */
import { type Graph, type Node, typeOf } from "../graph/index.ts";
import { byteLength } from "../tensor/index.ts";
import { backwardOf, blocksFrom, forwardNodes } from "./blocks.ts";
import type { Cut } from "./cut.ts";
import { type GivenStages, givenStages } from "./given-stages.ts";
import type { PassTask } from "./pass.ts";
import { unitsOf } from "./phases.ts";
import { type ComputeTask, type StagePart, type StepGraph, valueOf } from "./step-graph.ts";
import type { Direction, Needs } from "./timetable.ts";

/** How long nodes take, and what it costs that bytes cross between two stages. */
export interface StageCosts {
  /** The seconds of a node. */
  secondsOf(graph: Graph, node: Node): number;
  readonly bytesPerSecond: number;
}

export interface StageOptions {
  readonly count: number;
  /** The stages whose backward part is cut in two, if something of it can be computed later. */
  readonly isSplit: (stage: number) => boolean;
  /** Where the pass is to be cut. Default: where the slowest stage is fastest. */
  readonly given?: GivenStages | undefined;
}

/** A part of a stage, with its seconds for a micro-batch. */
export interface StagePiece extends StagePart {
  readonly seconds: number;
}

export interface StageCut {
  /** The parts of stages, in an order in which they can run. */
  readonly pieces: readonly StagePiece[];
  /** By node: which of them it belongs to. */
  readonly pieceOf: ReadonlyMap<Node, number>;
}

/** @returns undefined if the pass has fewer places where it can be cut */
export function cutIntoStages(
  step: StepGraph,
  task: ComputeTask,
  { count, isSplit, given }: StageOptions,
  costs: StageCosts,
): StageCut | undefined {
  const { secondsOf } = costs;
  const graph = step.graphs.get(task.graph) as Graph;
  const { unitBy } = unitsOf(step, task);
  const forward = forwardNodes(step, task);
  const lists =
    given === undefined
      ? foundStages(graph, forward, unitBy, { ...costs, count })
      : givenStages(forward, count, given);
  if (lists === undefined) return undefined;
  const stages = blocksFrom(graph, lists, unitBy);
  const stageOf = (node: Node) => {
    const piece = stages.pieceOf.get(node) as number;
    return Math.min(piece, backwardOf(count, piece));
  };
  const isForward = new Set(forward);
  const backward = graph.nodes.filter((node) => !isForward.has(node));
  const later = waiting(backward, stageOf);
  // Where no stage waits for anything, there is nothing to compute before it.
  const awaited = new Set(backward.filter((node) => !later.has(node)).map(stageOf));
  const isInTwo = (stage: number) => isSplit(stage) && awaited.has(stage);
  const directionOf = (node: Node): Direction => {
    if (isForward.has(node)) return "F";
    return isInTwo(stageOf(node)) && later.has(node) ? "W" : "B";
  };
  const order = Array.from({ length: count }, (_, stage) => stage);
  const parts: StagePart[] = [
    ...order.map((stage) => ({ stage, direction: "F" as const })),
    ...order.toReversed().flatMap((stage) => [
      { stage, direction: "B" as const },
      { stage, direction: "W" as const },
    ]),
  ];
  const pieces = parts.flatMap((part) => {
    const nodes = graph.nodes.filter(
      (node) => stageOf(node) === part.stage && directionOf(node) === part.direction,
    );
    const took = nodes.reduce((sum, node) => sum + secondsOf(graph, node), 0);
    return nodes.length === 0 ? [] : [{ ...part, nodes, seconds: took }];
  });
  const pieceOf = new Map(pieces.flatMap(({ nodes }, at) => nodes.map((node) => [node, at])));
  const list = pieces.map(({ stage, direction, seconds }) => ({ stage, direction, seconds }));
  return { pieces: list, pieceOf };
}

/**
 * The forward nodes of each stage, such that the slowest stage is fast and few bytes cross. Each stage
 * has a parameter.
 */
function foundStages(
  graph: Graph,
  forward: readonly Node[],
  parameters: { has(input: string): boolean },
  { count, secondsOf, bytesPerSecond }: StageCosts & Pick<StageOptions, "count">,
): Node[][] | undefined {
  // Each backward node counts for the forward node to which it belongs.
  const each = blocksFrom(
    graph,
    forward.map((node) => [node]),
    parameters,
  );
  const seconds = new Array<number>(forward.length).fill(0);
  for (const [node, piece] of each.pieceOf) {
    const at = Math.min(piece, backwardOf(each.count, piece));
    seconds[at] = (seconds[at] as number) + secondsOf(graph, node);
  }
  const crossing = crossingBytes(graph, forward).map((bytes) => (2 * bytes) / bytesPerSecond);
  const trains = forward.map(({ inputs }) => inputs.some((name) => parameters.has(name)));
  const ends = cheapestCut(seconds, crossing, { inner: narrowest(crossing), count, trains });
  return ends?.map((end, stage) => forward.slice(ends[stage - 1] ?? 0, end));
}

/** The backward nodes of which no other stage needs anything. */
function waiting(backward: readonly Node[], stageOf: (node: Node) => number): ReadonlySet<Node> {
  const found = new Set<Node>();
  /** Values that another stage needs. */
  const wanted = new Set<string>();
  /** By value: the stages that read it. */
  const readers = new Map<string, Set<number>>();
  for (const node of backward.toReversed()) {
    const stage = stageOf(node);
    const isWanted = node.outputs.some(
      (name) => wanted.has(name) || [...(readers.get(name) ?? [])].some((other) => other !== stage),
    );
    if (!isWanted) found.add(node);
    for (const name of node.inputs) {
      if (isWanted) wanted.add(name);
      readers.set(name, (readers.get(name) ?? new Set()).add(stage));
    }
  }
  return found;
}

/** The bytes that cross before each forward node but the first: made before, and read from there on. */
function crossingBytes(graph: Graph, forward: readonly Node[]): number[] {
  const madeAt = new Map<string, number>();
  const readAt = new Map<string, number>();
  for (const [at, { inputs, outputs }] of forward.entries()) {
    for (const name of inputs) if (madeAt.has(name)) readAt.set(name, at);
    for (const name of outputs) if (name !== "") madeAt.set(name, at);
  }
  const changes = new Array<number>(forward.length + 1).fill(0);
  for (const [name, last] of readAt) {
    const first = (madeAt.get(name) as number) + 1;
    const bytes = byteLength(typeOf(graph, name));
    changes[first] = (changes[first] as number) + bytes;
    changes[last + 1] = (changes[last + 1] as number) - bytes;
  }
  let now = 0;
  return changes.slice(0, forward.length).map((change) => {
    now += change;
    return now;
  });
}

/** The places before which less crosses than before their neighbours. */
function narrowest(crossing: readonly number[]): number[] {
  return [...crossing.keys()].filter((place) => {
    const [before, here, after] = [crossing[place - 1], crossing[place] ?? 0, crossing[place + 1]];
    return before !== undefined && here <= before && here <= (after ?? 0);
  });
}

interface CutOptions {
  /** The places where the list may be cut. */
  readonly inner: readonly number[];
  readonly count: number;
  /** Which elements have parameters: each part has such an element. */
  readonly trains: readonly boolean[];
}

/**
 * Cuts a list into parts so that the longest part, with what crosses at its ends, is as short as can
 * be, and then all parts are as equal as can be (dynamic programming). Returns where parts end.
 */
function cheapestCut(
  seconds: readonly number[],
  crossing: readonly number[],
  { inner, count, trains }: CutOptions,
): readonly number[] | undefined {
  const length = seconds.length;
  const at = (index: number) => crossing[index] ?? 0;
  const places = [0, ...inner, length];
  const sums = [0];
  for (const own of seconds) sums.push((sums.at(-1) as number) + own);
  const trained = [0];
  for (const own of trains) trained.push((trained.at(-1) as number) + (own ? 1 : 0));
  const timeOf = (start: number, end: number) =>
    trained[start] === trained[end]
      ? Number.POSITIVE_INFINITY
      : (sums[end] as number) -
        (sums[start] as number) +
        at(start) +
        (end === length ? 0 : at(end));
  const longest = cutAt(places, count, timeOf, Math.max);
  if (longest === undefined) return undefined;
  const squareOf = (start: number, end: number) => {
    const time = timeOf(start, end);
    return time > longest.cost ? Number.POSITIVE_INFINITY : time ** 2;
  };
  return cutAt(places, count, squareOf, (a, b) => a + b)?.ends;
}

/** The parts of least cost. @param plus brings the costs of parts together */
function cutAt(
  places: readonly number[],
  count: number,
  costOf: (start: number, end: number) => number,
  plus: (a: number, b: number) => number,
): { readonly cost: number; readonly ends: readonly number[] } | undefined {
  /** By place: the cheapest parts up to there. */
  let best = places.map((end, index) => ({
    cost: index === 0 ? Number.POSITIVE_INFINITY : costOf(0, end),
    ends: [end],
  }));
  for (let part = 1; part < count; part++) {
    best = places.map((end, index) => {
      let [cost, ends] = [Number.POSITIVE_INFINITY, [] as number[]];
      for (let from = part; from < index; from++) {
        const before = best[from] as (typeof best)[number];
        const own = plus(before.cost, costOf(places[from] as number, end));
        if (own < cost) [cost, ends] = [own, [...before.ends, end]];
      }
      return { cost, ends };
    });
  }
  const whole = best.at(-1);
  return whole !== undefined && Number.isFinite(whole.cost) ? whole : undefined;
}

/**
 * Shares out the pieces of a pass that is cut at its blocks (`blocksOf`): those of neighbouring
 * blocks are a stage. The last block is one piece, which is in the backward part of its stage.
 * @returns the part of which stage each piece is; undefined if there are fewer blocks than stages
 */
export function stagesOfBlocks(
  { step, pieces, numbers, blocks }: Cut & { readonly blocks: number },
  count: number,
  { secondsOf, bytesPerSecond }: StageCosts,
): StagePart[] | undefined {
  const blockOf = (piece: number) => {
    const number = numbers[piece] as number;
    return Math.min(number, backwardOf(blocks, number));
  };
  const seconds = new Array<number>(blocks).fill(0);
  const makers = new Map<string, number>();
  const crossing = new Array<number>(blocks).fill(0);
  const trains = new Array<boolean>(blocks).fill(false);
  for (const [piece, { graph: name, inputs, outputs }] of pieces.entries()) {
    const block = blockOf(piece);
    const graph = step.graphs.get(name) as Graph;
    const took = graph.nodes.reduce((sum, node) => sum + secondsOf(graph, node), 0);
    seconds[block] = (seconds[block] as number) + took;
    trains[block] ||= inputs.some((input) => valueOf(step, input).role === "parameter");
    for (const input of inputs) {
      const maker = makers.get(input) ?? block;
      const took = byteLength(valueOf(step, input).type) / bytesPerSecond;
      const [first, last] = [Math.min(maker, block), Math.max(maker, block)];
      for (let at = first + 1; at <= last; at++) crossing[at] = (crossing[at] as number) + took;
    }
    for (const output of outputs) makers.set(output, block);
  }
  const inner = Array.from({ length: blocks - 1 }, (_, at) => at + 1);
  const ends = cheapestCut(seconds, crossing, { inner, count, trains });
  return (
    ends &&
    pieces.map((_, piece): StagePart => {
      const stage = ends.findIndex((end) => blockOf(piece) < end);
      return { stage, direction: (numbers[piece] as number) < blocks - 1 ? "F" : "B" };
    })
  );
}

/** The part of a stage that makes each value, by its name. */
export function stageMakers(pieces: readonly PassTask[]): ReadonlyMap<string, StagePart> {
  return new Map(
    pieces.flatMap(({ stage, outputs }) =>
      stage === undefined ? [] : outputs.map((name) => [name, stage] as const),
    ),
  );
}

/** The parts of stages that make what a part reads. */
export function stageNeeds(pieces: readonly PassTask[]): Needs {
  const makers = stageMakers(pieces);
  const nameOf = ({ stage, direction }: StagePart) => `${stage}${direction}`;
  const needs = new Map<string, Map<string, StagePart>>();
  for (const { stage, inputs } of pieces) {
    if (stage === undefined) continue;
    const own = needs.get(nameOf(stage)) ?? new Map<string, StagePart>();
    for (const part of inputs.flatMap((name) => makers.get(name) ?? [])) {
      if (nameOf(part) !== nameOf(stage)) own.set(nameOf(part), part);
    }
    needs.set(nameOf(stage), own);
  }
  return (part) => [...(needs.get(nameOf(part))?.values() ?? [])];
}
