/**
 * Gradients of a stage that no rank keeps whole (ZeRO-2): the ranks that compute the same stage for
 * other micro-batches run the same turns at the same time. Behind each piece of the last part of the
 * stage its gradients, which lie in a bucket, go to the ranks that own them, and these sum them in the
 * order of the one tree over all micro-batches. With ZeRO-3 each piece finds its parameters in a
 * buffer that is filled before it, unless they are there from the piece before.
 */
import { isOfKind, type PassTask, type StepGraph, valueOf } from "../plan/index.ts";
import { BucketSums, type GradientBucket } from "./bucket-sums.ts";
import { bucketBuffer } from "./buffers.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { type Gathered, gatheredRef, type Unit } from "./gathered.ts";
import type { LayoutGroup } from "./layout.ts";
import { extentsOf, type Ownership, ownedSpans, ownSpans } from "./ownership.ts";
import type {
  CollectiveStage,
  Extent,
  ProgramBuilder,
  RunStage,
  SimpleStage,
  TensorRef,
} from "./program.ts";
import { Room } from "./room.ts";
import { extentOf, tilesIn, wholeSpan } from "./spans.ts";
import { cutsByOwner, isLast, isSummed } from "./stage-tiles.ts";
import { isOfEach } from "./stage-waves.ts";
import { sumOf } from "./sums.ts";
import type { Wave } from "./waves.ts";

/** Gradients of a stage that are summed together, behind a task of its last part. */
interface StageBucket extends GradientBucket {
  readonly stage: number;
  readonly after: PassTask;
}

/** What is gathered for a piece. */
interface StageUnit {
  readonly unit: Unit;
  /** What of it is copied, and not read in place. */
  readonly copied: string;
}

export interface StageSharesOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  /** The pieces of all stages, and those of this rank's stages. */
  readonly all: readonly PassTask[];
  readonly own: readonly PassTask[];
  /** Who owns the tiles: the ranks of several pipelines, each of which has so many. */
  readonly ownership: Ownership;
  readonly count: number;
  /** The name of the group of ranks that compute this rank's stages. */
  readonly group: string;
  readonly lanes: number;
  readonly gathered: Gathered;
}

export class StageShares {
  readonly #program: ProgramBuilder;
  readonly #options: StageSharesOptions;
  /** Those of all stages. */
  readonly #buckets: readonly StageBucket[];
  /** Who sums what, among the ranks that compute the same stages. */
  readonly #summing: Ownership;
  readonly #sums: BucketSums;
  /** By the name of a gathered parameter. */
  readonly #units: ReadonlyMap<string, StageUnit>;
  /** What the buffer of units has, while stages are written. */
  #filled = "";

  constructor(program: ProgramBuilder, options: StageSharesOptions) {
    const { step, vectors, all, own, ownership, count, group, lanes, gathered } = options;
    this.#program = program;
    this.#options = options;
    const place = ownership.place % count;
    const ranks = ownership.ranks.filter((_, at) => at % count === place);
    program.groups.set(group, ranks);
    this.#summing = {
      ...ownership,
      group,
      place: Math.floor(ownership.place / count),
      ranks,
      cuts: cutsOfReplicas(ownership, vectors.gradients.groups, count),
    };
    this.#sums = new BucketSums(program, this.#summing, lanes);
    this.#buckets = bucketsOf(step, vectors, all);
    const gathers = step.tasks.filter(isOfKind("gather")).filter(isOfEach);
    const read = new Set(own.flatMap(({ inputs }) => inputs));
    this.#units = new Map(
      gathers
        .filter(({ outputs }) => outputs.some((name) => read.has(name)))
        .flatMap(({ name, inputs, outputs }) => {
          const names = inputs.map((input) => valueOf(step, input).of);
          // Turns follow each other, so one buffer is enough.
          const unit = gathered.unit(name, names, 0);
          const copied = names.filter((of) => !unit.inPlace.has(of)).join(" ");
          return outputs.map((output) => [output, { unit, copied }] as const);
        }),
    );
  }

  allocate(): void {
    const { lanes, own } = this.#options;
    const bytesOf = (buckets: readonly StageBucket[]) =>
      Math.max(0, ...buckets.map(({ room }) => room.byteLength));
    const here = bytesOf(this.#buckets.filter(({ after }) => own.includes(after)));
    for (let lane = 0; lane < lanes; lane++) {
      // All ranks of a run have the same shared buffers.
      const name = this.#program.buffer(bucketBuffer(0, lane), bytesOf(this.#buckets));
      this.#program.shared.add(name);
      this.#program.touches(name, here > 0 ? [{ byteOffset: 0, byteLength: here }] : []);
    }
    this.#sums.allocate(this.#buckets);
  }

  /** What this rank sums. */
  get extents(): Extent[] {
    const { own, vectors } = this.#options;
    const blocks = this.#buckets
      .filter(({ after }) => own.includes(after))
      .flatMap(({ room }) => room.blocks(this.#summing));
    const summed = vectors.gradients.groups.filter(isSummed);
    return [
      ...blocks.flatMap(({ owner, span }) =>
        owner === this.#summing.place ? [extentOf(span)] : [],
      ),
      ...extentsOf({ ...vectors.gradients, groups: summed }, undefined, ownSpans),
    ];
  }

  /**
   * The place, among all that share, that has the sums of what a place in a pipeline makes.
   * @param isOwned tile by tile
   */
  placeOf(place: number, isOwned: boolean): number {
    // What has no owners is summed in the first pipeline.
    const pipeline = isOwned ? this.#summing.place : 0;
    return pipeline * this.#options.count + place;
  }

  /** Where a piece finds a parameter that is gathered for it. */
  parameter(name: string): TensorRef | undefined {
    const found = this.#units.get(name);
    return found && gatheredRef(found.unit, valueOf(this.#options.step, name).of);
  }

  /** Where a micro-batch in a lane leaves what is summed. */
  leaf(name: string, lane: number): TensorRef | undefined {
    for (const { room, buffer } of this.#buckets) {
      const found = room.ref(name, bucketBuffer(buffer, lane));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** A step begins: of what the buffer of units has nothing is known. */
  begin(): void {
    this.#filled = "";
  }

  /**
   * @param tasks the pieces of a part of a stage, and the exchanges between them
   * @param run what some of them run, that follow each other
   * @param terms what was made earlier, and goes into the last bucket of a stage
   */
  turn(
    tasks: readonly PassTask[],
    wave: Wave,
    run: (tasks: readonly PassTask[]) => SimpleStage[],
    terms: () => readonly RunStage[],
  ): SimpleStage[] {
    const stages: SimpleStage[] = [];
    let open: PassTask[] = [];
    const close = () => {
      if (open.length > 0) stages.push(...run(open));
      open = [];
    };
    for (const task of tasks) {
      const filling = this.#fill(task);
      if (filling.length > 0) {
        close();
        stages.push(...filling);
      }
      open.push(task);
      const bucket = this.#buckets.find(({ after }) => after === task);
      if (bucket === undefined) continue;
      close();
      const isLastOfStage =
        this.#buckets.findLast(({ stage }) => stage === bucket.stage) === bucket;
      if (isLastOfStage) stages.push(...terms());
      stages.push(...this.#sumsOf(wave, bucket));
    }
    close();
    return stages;
  }

  /** What has to be copied before a piece, and is not there. */
  #fill({ inputs }: PassTask): readonly SimpleStage[] {
    const found = inputs.map((name) => this.#units.get(name)).find((own) => own !== undefined);
    if (found === undefined || ["", this.#filled].includes(found.copied)) return [];
    this.#filled = found.copied;
    return found.unit.work;
  }

  #sumsOf(wave: Wave, bucket: StageBucket): (RunStage | CollectiveStage)[] {
    return this.#sums
      .stages(wave, bucket)
      .map((own) => (own.mode === "collective" ? { ...own, ofStage: bucket.stage } : own));
  }
}

/** The tiles of each pipeline: within a stage, those of the rank that has it there. */
function cutsOfReplicas(
  ownership: Ownership,
  groups: readonly LayoutGroup[],
  count: number,
): Ownership["cuts"] {
  const replicas = ownership.ranks.length / count;
  return groups
    .filter((group) => !isSummed(group))
    .flatMap((group) => {
      const owners = ownedSpans(ownership, wholeSpan(group)).flatMap(({ owner, span }) =>
        Array.from({ length: tilesIn(span) }, () => Math.floor(owner / count)),
      );
      return cutsByOwner(group, owners, replicas);
    });
}

/** A bucket behind each piece of the last part of a stage, the last of which has all the rest. */
function bucketsOf(
  step: StepGraph,
  { gradients }: FlatVectors,
  all: readonly PassTask[],
): StageBucket[] {
  const reduces = step.tasks.filter(isOfKind("reduce")).filter(isOfEach);
  const stages = new Set(all.map(({ stage }) => stage?.stage ?? 0));
  return [...stages].flatMap((stage): StageBucket[] => {
    const own = all.filter((task) => task.stage?.stage === stage);
    const last = own.filter((task) => task.stage !== undefined && isLast(all, task.stage));
    const lists = reduces.flatMap(({ name, inputs }) => {
      const after = last.findLast(({ outputs }) => outputs.some((made) => inputs.includes(made)));
      return after === undefined ? [] : [{ name, values: [...inputs], after }];
    });
    const listed = new Set(lists.flatMap(({ values }) => values));
    const made = own.flatMap(({ outputs }) => outputs);
    const rest = made.filter((name) => sumOf(step, name) !== undefined && !listed.has(name));
    const end = last.at(-1) as PassTask;
    const before = lists.pop() ?? { name: `sums of stage ${stage}`, values: [] };
    const buckets = [...lists, { ...before, values: [...before.values, ...rest], after: end }];
    return buckets.map(({ name, values, after }) => {
      const names = values.map((value) => flatName(step, sumOf(step, value) as string));
      return { name, room: new Room(gradients, names), buffer: 0, stage, after };
    });
  });
}
