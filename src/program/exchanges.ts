/**
 * How the ranks of an axis exchange what they hold within a pass. Each writes what it gives into a
 * buffer that the others read: in place within a node, else after an all-gather. Then each computes
 * what it needs, alike on all ranks.
 */
import { add, maximum } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import {
  type AxisPlacement,
  groupOf,
  isShard,
  type Mesh,
  placeOnAxis,
  type Topology,
} from "../mesh/index.ts";
import { newBuilder } from "../ops/index.ts";
import { buildNamed, type ExchangeTask, isOfKind, type StepGraph, valueOf } from "../plan/index.ts";
import { byteLength, elementCount, type TensorType } from "../tensor/index.ts";
import { exchangeBuffer } from "./buffers.ts";
import { bringTogether, takePart } from "./dim-parts.ts";
import { isInPlaceOver } from "./levels.ts";
import {
  allGather,
  barrier,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type TensorRef,
} from "./program.ts";
import { sweepMode } from "./runs.ts";

export interface ExchangeOptions {
  /** In the shapes of a rank. */
  readonly step: StepGraph;
  readonly mesh: Mesh;
  readonly topology: Topology;
  readonly rank: number;
  /** What the program calls a rank of the run. */
  readonly nameOf: (rank: number) => number;
}

/** The exchanges of one axis. */
interface AxisExchanges {
  readonly ranks: readonly number[];
  readonly place: number;
  readonly isInPlace: boolean;
  /** The turn of each exchange. */
  readonly turns: ReadonlyMap<ExchangeTask, number>;
}

/** Where a rank gives a value. */
interface Given {
  readonly axis: string;
  readonly turn: number;
  readonly byteOffset: number;
}

const ALIGNMENT = 64; // bytes

export class Exchanges {
  readonly #program: ProgramBuilder;
  readonly #options: ExchangeOptions;
  readonly #axes = new Map<string, AxisExchanges>();
  readonly #given = new Map<string, Given>();
  /** The bytes that a rank gives, by axis and turn. */
  readonly #bytes = new Map<string, number[]>();

  constructor(program: ProgramBuilder, options: ExchangeOptions) {
    const { step, mesh, topology, rank } = options;
    this.#program = program;
    this.#options = options;
    const tasks = step.tasks.filter(isOfKind("exchange"));
    for (const axis of new Set(tasks.map((task) => task.axis))) {
      const ranks = groupOf(mesh, [axis], rank);
      const turns = turnsOf(tasks.filter((task) => task.axis === axis));
      const place = placeOnAxis(mesh, axis, rank);
      const isInPlace = isInPlaceOver({ mesh, topology }, [axis]);
      this.#axes.set(axis, { ranks, place, isInPlace, turns });
      program.groups.set(axis, ranks.map(options.nameOf));
      for (const [task, turn] of turns) this.#place(task, turn);
    }
  }

  #place({ axis, inputs }: ExchangeTask, turn: number): void {
    let byteOffset = 0;
    for (const name of inputs) {
      this.#given.set(name, { axis, turn, byteOffset });
      const bytes = byteLength(valueOf(this.#options.step, name).type);
      byteOffset += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    }
    const bytes = this.#bytes.get(axis) ?? [];
    bytes[turn] = Math.max(bytes[turn] ?? 0, byteOffset);
    this.#bytes.set(axis, bytes);
  }

  /** @param lanes micro-batches that run at once */
  allocate(lanes: number): void {
    for (const [axis, bytes] of this.#bytes) {
      const { ranks, isInPlace } = this.#axes.get(axis) as AxisExchanges;
      for (const [turn, own] of bytes.entries()) {
        for (let lane = 0; lane < lanes; lane++) {
          const all = (own ?? 0) * (isInPlace ? 1 : ranks.length);
          this.#program.shared.add(this.#program.buffer(exchangeBuffer(axis, turn, lane), all));
        }
      }
    }
  }

  /** Where this rank gives a value; undefined for values that are not exchanged. */
  place(name: string, lane: number): TensorRef | undefined {
    const given = this.#given.get(name);
    if (given === undefined) return undefined;
    const { place } = this.#axes.get(given.axis) as AxisExchanges;
    return this.#ofPlace(name, given, place, lane);
  }

  #ofPlace(name: string, { axis, turn, byteOffset }: Given, place: number, lane: number) {
    const { isInPlace, ranks, place: own } = this.#axes.get(axis) as AxisExchanges;
    const { type } = valueOf(this.#options.step, name);
    const buffer = exchangeBuffer(axis, turn, lane);
    if (!isInPlace) {
      const each = this.#bytes.get(axis)?.[turn] ?? 0;
      return { buffer, byteOffset: byteOffset + place * each, type };
    }
    const ref = { buffer, byteOffset, type };
    return place === own ? ref : { ...ref, rank: this.#options.nameOf(ranks[place] as number) };
  }

  /**
   * What is done for an exchange after the piece before it.
   * @param lanes the lanes that have run the piece
   * @param refOf the place of a result
   */
  stages(
    task: ExchangeTask,
    lanes: readonly number[],
    refOf: (name: string, lane: number) => TensorRef,
  ): (RunStage | CollectiveStage)[] {
    const { axis, name } = task;
    const { ranks, isInPlace, turns } = this.#axes.get(axis) as AxisExchanges;
    const turn = turns.get(task) as number;
    const bytes = this.#bytes.get(axis)?.[turn] ?? 0;
    const counts = ranks.map(() => bytes);
    const together = isInPlace
      ? [barrier(name, axis)]
      : lanes.map((lane) => {
          const data = { buffer: exchangeBuffer(axis, turn, lane), byteOffset: 0 };
          return allGather(name, axis, { counts, dtype: "uint8" }, data);
        });
    const runs = lanes.flatMap((lane) =>
      task.inputs.map((input, index) => this.#run(task, index, input, lane, refOf)),
    );
    // The next one may write what others would still read.
    const after = isInPlace && turn === LONE ? [barrier(`${name}, read`, axis)] : [];
    const read = runs.flatMap(({ inputs }) => Object.values(inputs));
    const elements = read.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
    const ofStage = (own: CollectiveStage): CollectiveStage =>
      task.stage === undefined ? own : { ...own, ofStage: task.stage.stage };
    const run: RunStage = { name, runs, mode: sweepMode(elements, 0.5) };
    return [...together.map(ofStage), run, ...after.map(ofStage)];
  }

  #run(
    { axis, from, to, shifted, outputs }: ExchangeTask,
    index: number,
    input: string,
    lane: number,
    refOf: (name: string, lane: number) => TensorRef,
  ): Run {
    const { ranks, place } = this.#axes.get(axis) as AxisExchanges;
    const given = this.#given.get(input) as Given;
    const result = refOf(outputs[index] as string, lane);
    if (shifted?.[index] === true) {
      const before = (place + ranks.length - 1) % ranks.length;
      const part = this.#ofPlace(input, given, before, lane);
      const graph = copyGraph(this.#program, part.type);
      return { graph, inputs: { part }, outputs: { result } };
    }
    const parts = ranks.map((_, at) => this.#ofPlace(input, given, at, lane));
    const how = { from: from[index] as AxisPlacement, to: to[index], place, ranks: ranks.length };
    const { type } = parts[0] as TensorRef;
    return {
      graph: exchangeGraph(this.#program, type, how),
      inputs: Object.fromEntries(parts.map((ref, at) => [`part.${at}`, ref])),
      outputs: { result },
    };
  }
}

/** The turn of an exchange that is the only one of its part of the pass. */
const LONE = 3;

/**
 * A buffer is written again two exchanges later: by then all ranks have come to the one between, and
 * have read it. The pass has one part, or a part for each direction of each stage; any part may
 * follow any other. So each begins with turn 0 and ends with another: the last of an odd number has a
 * buffer of its own, and so has one that is alone, which all ranks have read when it ends.
 */
function turnsOf(tasks: readonly ExchangeTask[]): Map<ExchangeTask, number> {
  const parts = new Map<string, ExchangeTask[]>();
  for (const task of tasks) {
    const part = `${task.stage?.stage} ${task.stage?.direction}`;
    parts.set(part, [...(parts.get(part) ?? []), task]);
  }
  const turnOf = (index: number, count: number) => {
    if (count === 1) return LONE;
    return count % 2 === 1 && index === count - 1 ? 2 : index % 2;
  };
  return new Map(
    [...parts.values()].flatMap((own) =>
      own.map((task, index) => [task, turnOf(index, own.length)] as const),
    ),
  );
}

interface How {
  readonly from: AxisPlacement;
  readonly to: AxisPlacement | undefined;
  readonly place: number;
  readonly ranks: number;
}

/** What one rank gives, as it is. */
function copyGraph(program: ProgramBuilder, type: TensorType): string {
  const name = `exchange.${type.dtype}.${type.shape.join("x")}.one`;
  return program.graph(name, 1, () => {
    const builder = newBuilder("exchange");
    const part = builder.input("part", type);
    return buildNamed(builder, new Map([["result", builder.one("Identity", [part])]]));
  });
}

/** From what all ranks give to what one of them needs. */
function exchangeGraph(program: ProgramBuilder, type: TensorType, how: How): string {
  const { from, to, place, ranks } = how;
  // What depends on the place is another graph for each.
  const at = isShard(to) ? `.${place}` : "";
  const name = `exchange.${type.dtype}.${type.shape.join("x")}.${ranks}.${JSON.stringify([from, to])}${at}`;
  return program.graph(name, 1, () => {
    const builder = newBuilder("exchange");
    const parts = Array.from({ length: ranks }, (_, index) => builder.input(`part.${index}`, type));
    const needed = parts.map((part) => (isShard(to) ? takePart(part, to, place, ranks) : part));
    const combine = (one: Value, other: Value) =>
      from === "partial max" ? maximum(one, other) : add(one, other);
    const result = isShard(from) ? bringTogether(needed, from) : needed.reduce(combine);
    return buildNamed(builder, new Map([["result", result]]));
  });
}
