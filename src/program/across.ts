/**
 * What goes between ranks that divide a model. Ranks that have the same part of it are lowered as if
 * they were alone, under numbers of their own; here is what they have to do with the others.
 */
import type { Graph } from "../graph/index.ts";
import { groupOf, type Mesh, modelAxes, peersOf } from "../mesh/index.ts";
import { cutAtExchanges, isOfKind, localStep, type StepGraph } from "../plan/index.ts";
import { PARAMETERS, WISHES } from "./buffers.ts";
import { type Divided, dividedOf } from "./divided.ts";
import { Exchanges } from "./exchanges.ts";
import { ALIGNMENT, planLayout } from "./layout.ts";
import { type Ground, isInPlaceOver } from "./levels.ts";
import type { PartGroups } from "./norm.ts";
import { ownGraph } from "./own-graph.ts";
import { type PartSumOptions, partSums } from "./part-sums.ts";
import type { Places } from "./places.ts";
import {
  barrier,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { copyRun } from "./runs.ts";
import type { StepProgram } from "./step-program.ts";
import { Together } from "./together.ts";
import { runWhole, type WholeOptions } from "./whole-parameters.ts";

/** What all ranks tell each other: where a rank writes it and reads what all have told. */
export interface Told {
  readonly place: TensorRef;
  readonly stages: readonly Stage[];
}

const ALL = "all ranks";

export class Across {
  /** The ranks with the same part of the model, as a mesh of their own, and this rank among them. */
  readonly ground: Ground;
  readonly place: number;
  /** The step of these ranks, in the shapes of a part. */
  readonly step: StepGraph;
  readonly divided: Divided;
  /** The rank of the run for each number that the program has for one. */
  readonly ranks: readonly number[];
  readonly #mesh: Mesh;
  readonly #ground: Ground;
  readonly #rank: number;

  constructor(step: StepGraph, ground: Ground, rank: number) {
    const { mesh, topology } = ground;
    const peers = peersOf(mesh, topology, rank);
    const all = Array.from({ length: mesh.size }, (_, other) => other);
    this.ranks = [...peers.ranks, ...all.filter((other) => !peers.ranks.includes(other))];
    this.ground = peers;
    this.place = peers.place;
    this.divided = dividedOf(step, ground, rank);
    this.step = withOwnGraphs(cutAtExchanges(localStep(step, mesh)), mesh, rank);
    this.#mesh = mesh;
    this.#ground = ground;
    this.#rank = rank;
  }

  /** Whether no rank has all of the model. */
  get isModelDivided(): boolean {
    return this.divided.tensors.size > 0;
  }

  exchanges(program: ProgramBuilder): Exchanges {
    const options = { step: this.step, ...this.#ground, rank: this.#rank };
    return new Exchanges(program, { ...options, nameOf: (rank) => this.#nameOf(rank) });
  }

  /** All ranks of the run come here. */
  barrier(program: ProgramBuilder, name: string): Stage {
    const ranks = Array.from({ length: this.#mesh.size }, (_, rank) => this.#nameOf(rank));
    program.groups.set(ALL, ranks);
    return barrier(name, ALL);
  }

  /** Finds the ranks that have other parts of what axes divide. */
  partGroups(program: ProgramBuilder): PartGroups {
    return (axes) => {
      const ranks = groupOf(this.#mesh, axes, this.#rank);
      const group = axes.join(" and ");
      program.groups.set(
        group,
        ranks.map((rank) => this.#nameOf(rank)),
      );
      return { group, place: ranks.indexOf(this.#rank), ranks: ranks.length };
    };
  }

  /**
   * What ranks with the same part have told each other goes to those with other parts.
   * @param told where it lies; undefined if they tell each other nothing
   */
  tell(program: ProgramBuilder, told: TensorRef | undefined): Told {
    const type = { dtype: "float32", shape: [] } as const;
    const layout = planLayout([{ name: "stop", type, group: "summed" }], ALIGNMENT);
    const parts = this.partGroups(program)(modelAxes(this.#mesh));
    const together = new Together(program, { layout, ...parts });
    together.allocate(WISHES);
    const own = together.ref("stop", WISHES) as TensorRef;
    const summed = together.summed(WISHES, "what ranks tell");
    if (told === undefined) return { place: own, stages: summed };
    const copy = (name: string, from: TensorRef, to: TensorRef): RunStage => {
      return { name, runs: [copyRun(program, from, to)], mode: "small" };
    };
    return { place: told, stages: [copy("told", told, own), ...summed, copy("heard", own, told)] };
  }

  /**
   * What ranks have made of parts of the same samples is summed.
   * @param of where it lies
   */
  sums(
    program: ProgramBuilder,
    {
      places,
      ...of
    }: Pick<PartSumOptions, "vectors" | "ownership"> & { readonly places: Pick<Places, "ref"> },
  ): Stage[] {
    const { tasks } = this.step;
    const reduced = new Set(tasks.filter(isOfKind("reduce")).flatMap(({ axes }) => axes));
    const values = tasks.filter(isOfKind("norm")).flatMap((norm) => norm.terms);
    const terms = values.map(({ value }) => places.ref(value));
    return modelAxes(this.#mesh)
      .filter((axis) => reduced.has(axis))
      .flatMap((axis) => {
        const ranks = groupOf(this.#mesh, [axis], this.#rank);
        const named = ranks.map((rank) => this.#nameOf(rank));
        const place = ranks.indexOf(this.#rank);
        // Of a parameter that is divided over the axis, a rank has the only gradient.
        const updates = of.vectors.updates.filter(({ partOver }) => !partOver.includes(axis));
        const vectors = { ...of.vectors, updates };
        const isInPlace = isInPlaceOver(this.#ground, [axis]);
        const parts = { group: axis, place, ranks: named, isInPlace };
        return partSums(program, { ...of, vectors, terms, ...parts });
      });
  }

  /** Ranks that divide the model read its parts in place, for evaluations and checkpoints. */
  share(program: ProgramBuilder, slots: Iterable<TensorRef>): void {
    if (!this.isModelDivided) return;
    for (const { buffer } of slots) program.shared.add(buffer);
    program.shared.add(PARAMETERS);
  }

  /**
   * The ranks that have each place in the model, in the order of their samples.
   * @param stages the same of ranks that have the same part, if they have stages of it
   */
  #placesOf(stages: StepProgram["places"]): StepProgram["places"] {
    const { ranks } = this.divided;
    if (stages === undefined) return ranks;
    return ranks.flatMap((own) => stages.map((peers) => peers.map((peer) => own[peer] as number)));
  }

  /** What a program tells of the ranks among which the model is divided. */
  told({ places, isHeldInPlace }: Pick<StepProgram, "places" | "isHeldInPlace">) {
    const { divided } = this;
    const isInPlace = isHeldInPlace && divided.isInPlace;
    return { divided, places: this.#placesOf(places), isHeldInPlace: isInPlace };
  }

  /** A run of a graph of whole parameters, for which no other rank does anything. */
  runWhole(
    program: ProgramBuilder,
    name: string,
    graph: Graph,
    places: Pick<Run, "inputs" | "outputs"> & Pick<WholeOptions, "parameters" | "sharded">,
  ): Stage {
    const { parameters, sharded, ...of } = places;
    const nameOf = (rank: number) => this.#nameOf(rank);
    const { group } = this.partGroups(program)(modelAxes(this.#mesh));
    const { divided } = this;
    return runWhole(program, name, graph, of, { divided, parameters, sharded, group, nameOf });
  }

  #nameOf(rank: number): number {
    return this.ranks.indexOf(rank);
  }
}

/** The graphs of a rank, from those that are the same on all ranks. */
function withOwnGraphs(step: StepGraph, mesh: Mesh, rank: number): StepGraph {
  const own = [...step.graphs].map(([name, graph]) => [name, ownGraph(graph, mesh, rank)] as const);
  return { ...step, graphs: new Map(own) };
}
