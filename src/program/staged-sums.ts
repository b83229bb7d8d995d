/**
 * Sums of a pipeline: a rank computes its stages of the model, for all micro-batches of its pipeline,
 * and sums the gradients of each along the one tree over micro-batches. The flat vectors are shared
 * out tile by tile: a tile lies with the rank that makes the most of its gradient. A parameter that
 * lies in tiles of two ranks is brought together before a step, and its gradient is taken apart
 * behind it. Stages of one rank take turns, so each sums only what it makes (`spansOfStage`).
 */
import type { Graph } from "../graph/index.ts";
import {
  formatTurn,
  isOfKind,
  type PassTask,
  type Pipeline,
  type PlannedTurn,
  passTasks,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { GRADIENTS, gradientBuffer } from "./buffers.ts";
import { flatName, gradientAxes } from "./flat.ts";
import { Gathered } from "./gathered.ts";
import { entryRef, type LayoutGroup, planLayout } from "./layout.ts";
import { groupsOfRank, nearIn, placeIn, shardGroups } from "./levels.ts";
import { extentsOf, type Ownership, ownSpans } from "./ownership.ts";
import { turnRuns } from "./pass-runs.ts";
import type { At, Places } from "./places.ts";
import {
  barrier,
  type ProgramBuilder,
  type RunStage,
  type SimpleStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import type { Replicas } from "./replica-sums.ts";
import { copyRun } from "./runs.ts";
import { extentOf, type Span, wholeSpan } from "./spans.ts";
import { ownershipOfStages } from "./stage-owners.ts";
import { ofUnit, type StageParameters, stageParameters } from "./stage-parameters.ts";
import { StageShares } from "./stage-shares.ts";
import { isLast, isSummed, joined, type Makers, makersOf, spansOfStage } from "./stage-tiles.ts";
import { StageTurns } from "./stage-turns.ts";
import { planStageWaves, type StageWaves } from "./stage-waves.ts";
import { stagesMade } from "./stages-made.ts";
import { type RowGather, type SumOptions, type SumPlan, sumOf } from "./sums.ts";
import { Together } from "./together.ts";
import { type Wave, waveStage } from "./waves.ts";

const CONTROL = "control";

export class StagedSums implements SumPlan {
  readonly own: readonly number[];
  readonly lanes: number;
  readonly followsRanges = false;
  readonly rows: readonly RowGather[];
  readonly buckets = 1;
  readonly ownership: Ownership;
  readonly places: readonly (readonly number[])[];
  readonly gathered: Gathered;
  /** Which tiles of gradients ranks sum: those of this pipeline, or of all that share them out. */
  readonly #stages: Ownership;
  /** Undefined where each rank sums all that its stages make. */
  readonly #shares: StageShares | undefined;
  readonly #program: ProgramBuilder;
  readonly #options: SumOptions;
  readonly #waves: StageWaves;
  readonly #replicas: Replicas;
  readonly #turns: StageTurns;
  /** The parameters of this rank's stages. */
  readonly #parameters: StageParameters;
  /** The stage that makes each gradient, by the name of its parameter, and each other sum. */
  readonly #makers: Makers;
  /**
   * What is made for sums before the last part of a stage: where it is summed, there may still be
   * what an earlier micro-batch has made.
   */
  readonly #early: ReadonlySet<string>;
  /** By stage of this rank: what it sums. */
  readonly #made: ReadonlyMap<number, readonly Span[]>;
  readonly #control: Together;

  /** @throws INVALID_OPTION if an update needs whole parameters, or the timetable does not fit */
  constructor(program: ProgramBuilder, options: SumOptions) {
    const { step, vectors, ground, rank, lanes } = options;
    this.#program = program;
    this.#options = options;
    const pipeline = step.pipeline as Pipeline;
    const groups = shardGroups(ground, [pipeline.axis]);
    const owners = shardGroups(ground, gradientAxes(step, vectors));
    const { members, names } = groups;
    const { ranks, place } = placeIn(members, rank);
    for (const [name, own] of [...groupsOfRank(groups, rank), ...groupsOfRank(owners, rank)]) {
      program.groups.set(name, own);
    }
    this.places = ranks.map((_, at) => members.map((own) => own[at] as number));
    this.#waves = planStageWaves(program, { step, vectors, rank, groups, owners, lanes });
    const { replicas, counts, sharers } = this.#waves;
    this.lanes = this.#waves.lanes;
    this.#replicas = replicas;
    this.own = this.#waves.own;
    this.rows = this.#waves.rows;
    const reduces = step.tasks.filter(isOfKind("reduce"));
    const pieces = passTasks(step);
    this.#makers = makersOf(step, pieces);
    this.#early = new Set(
      pieces
        .filter(({ stage: part }) => part !== undefined && !isLast(pieces, part))
        .flatMap(({ outputs }) => outputs.filter((name) => sumOf(step, name) !== undefined)),
    );
    this.#turns = new StageTurns(program, {
      step,
      pipeline,
      ranks,
      place,
      microBatches: replicas.waves.length * this.lanes,
      counts,
      lanes: this.lanes,
      isKept: (name) => this.#early.has(name),
      isNear: nearIn(ground, ranks),
    });
    const { places } = this.#turns;
    const makers = new Map([...this.#makers].map(([name, of]) => [name, places[of] as number]));
    const tiles = { vectors: vectors.gradients.groups, makers, count: ranks.length };
    const of = { ground, rank, ...tiles };
    this.ownership = ownershipOfStages(owners, of);
    this.#stages = sharers === undefined ? ownershipOfStages(groups, of) : this.ownership;
    this.gathered = new Gathered(program, vectors.parameters, this.ownership);
    const { gathered, ownership } = this;
    const shared = { step, vectors, gathered, ownership, count: ranks.length, lanes: this.lanes };
    const here = { ...shared, all: pieces, own: this.#turns.pieces };
    this.#shares =
      sharers === undefined ? undefined : new StageShares(program, { ...here, group: sharers });
    const stages = this.#turns.places.flatMap((at, stage) => (at === place ? [stage] : []));
    const what = `parameters of stage ${stages.join(" and ")}`;
    this.#parameters = this.ownership.isInPlace
      ? ofUnit(this.gathered.unit(what, this.#turns.parametersOf(place), 0))
      : stageParameters(program, what, {
          parameters: vectors.parameters,
          ownership: this.ownership,
          isNear: nearIn(ground, this.ownership.ranks),
          wanted: (at) => this.#turns.parametersOf(at % ranks.length),
        });
    this.#made = new Map(
      stages.map((stage) => {
        const isBeside = (other: number) => this.#turns.isBeside(stage, other);
        const spansOf = (group: LayoutGroup) =>
          spansOfStage(group, this.#makers, { stage, isBeside });
        return [stage, vectors.gradients.groups.flatMap(spansOf)];
      }),
    );
    const told = reduces
      .flatMap(({ outputs }) => outputs)
      .map((name) => ({ name, ...valueOf(step, name) }));
    const items = told.filter(({ role }) => role === "control");
    this.#control = new Together(program, {
      layout: planLayout(
        items.map(({ name, type }) => ({ name, type, group: "summed" })),
        1024,
      ),
      group: names.all,
      ranks: ground.mesh.size,
      place: rank,
    });
    this.#allocate();
  }

  #allocate(): void {
    const { step, vectors } = this.#options;
    const program = this.#program;
    this.#turns.allocate();
    const own = extentsOf(vectors.gradients, this.#stages, ownSpans);
    const summed = this.#shares?.extents ?? [...this.#made.values()].flat().map(extentOf);
    for (const name of this.#replicas.accumulators) {
      program.touches(name, joined([...own, ...summed]));
    }
    this.#shares?.allocate();
    program.shared.add(GRADIENTS);
    this.#control.allocate(CONTROL);
    for (const task of this.#turns.pieces) {
      if (task.kind === "exchange") continue;
      program.graph(task.graph, 1, () => step.graphs.get(task.graph) as Graph);
    }
  }

  place(name: string, { microBatch, lane }: At): TensorRef | undefined {
    const { step } = this.#options;
    const { of, role } = valueOf(step, name);
    if (role === "activation" || this.#early.has(name)) return this.#turns.place(name, microBatch);
    if (name === valueName("parameter", of)) return this.#parameters.ref(of);
    if (role === "parameter") return this.#shares?.parameter(name);
    const wave = this.#replicas.waves[Math.floor(microBatch / this.lanes)] as Wave;
    return this.#leafRef(name, wave, lane);
  }

  /** Where the last part of a stage writes what is summed. */
  #leafRef(name: string, { leaves }: Wave, lane: number): TensorRef | undefined {
    const { step, vectors } = this.#options;
    const sum = sumOf(step, name);
    if (sum === undefined) return undefined;
    if (this.#shares !== undefined) return this.#shares.leaf(flatName(step, sum), lane);
    const buffer = gradientBuffer(leaves[lane] as number);
    return entryRef(vectors.gradients, buffer, flatName(step, sum));
  }

  control(of: string): TensorRef | undefined {
    return of === "paces" ? undefined : this.#control.ref(valueName("control", of), CONTROL);
  }

  pieces(): undefined {
    return undefined;
  }

  stages(places: Places, from: number): Stage[] {
    this.#shares?.begin();
    return [
      barrier("all parameters are there", this.ownership.group),
      ...this.#parameters.work,
      ...this.#turns.stages((turn) => this.#work(turn, places, from)),
      barrier("all stages are computed", this.#stages.group),
      ...this.#exchanged(places, from),
      ...this.#replicas.sum(this.#summedSpans(), "gradients"),
      ...this.#control.summed(CONTROL, "what ranks tell"),
    ];
  }

  #work(part: PlannedTurn, places: Places, from: number): SimpleStage[] {
    const { stage, direction, microBatch: turn } = part;
    const wave = this.#replicas.waves[turn] as Wave;
    const count = this.#waves.ofWave(wave).length;
    const first = turn * this.lanes;
    const tasks = this.#piecesOf(stage).filter((piece) => piece.stage?.direction === direction);
    const of = { ...this.#options, places, first, count, from, name: formatTurn(part) };
    const ats = Array.from({ length: count }, (_, lane): At => {
      return { microBatch: first + lane, lane, from };
    });
    const terms = () => this.#terms(stage, wave, ats);
    if (this.#shares !== undefined) {
      return this.#shares.turn(tasks, wave, (some) => turnRuns({ ...of, tasks: some }), terms);
    }
    const computed = turnRuns({ ...of, tasks });
    if (!isLast(this.#turns.pieces, part)) return computed;
    if (wave.sums.length === 0) return [...computed, ...terms()];
    const sums = waveStage(this.#program, wave, this.#made.get(stage) ?? []);
    return [...computed, ...terms(), sums];
  }

  #piecesOf(stage: number): PassTask[] {
    return this.#turns.pieces.filter((piece) => piece.stage?.stage === stage);
  }

  /** What was made before the last part of a stage, on its way to where it is summed. */
  #terms(stage: number, wave: Wave, ats: readonly At[]): RunStage[] {
    const made = this.#piecesOf(stage).flatMap(({ outputs }) => outputs);
    const early = made.filter((name) => this.#early.has(name));
    const runs = early.flatMap((name) =>
      ats.map((at) => {
        const kept = this.place(name, at) as TensorRef;
        return copyRun(this.#program, kept, this.#leafRef(name, wave, at.lane) as TensorRef);
      }),
    );
    return runs.length === 0 ? [] : [{ name: "terms", runs, mode: "small" }];
  }

  /** What other ranks have made of this rank's tiles, and what all ranks need of each stage. */
  #exchanged(places: Places, from: number): readonly SimpleStage[] {
    const { step, vectors, ground, exchanges } = this.#options;
    const stages = this.#stages;
    const shares = this.#shares;
    return stagesMade(this.#program, {
      step,
      groups: vectors.gradients.groups,
      stages,
      placeOf: (made, isOwned) => {
        const at = this.#turns.places[this.#makers.get(made) ?? -1];
        return at === undefined || shares === undefined ? at : shares.placeOf(at, isOwned);
      },
      isNear: nearIn(ground, stages.ranks),
      sums: this.#replicas.sums,
      places,
      from,
      isSummedAgain: this.#replicas.ranges.length > 1 || exchanges !== undefined,
    });
  }

  #summedSpans(): Span[] {
    const { groups } = this.#options.vectors.gradients;
    return groups.flatMap((group) =>
      isSummed(group) ? [wholeSpan(group)] : ownSpans(this.#stages, group),
    );
  }
}
