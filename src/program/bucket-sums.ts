/**
 * The gradients of one piece of the pass, brought together in a buffer for each lane, and summed by the ranks that look after them: in place
 * out of the memory of all, or out of what all have sent.
 */
import { bytesPerElement } from "../tensor/index.ts";
import { bucketBuffer, gradientBuffer, receivedBuffer } from "./buffers.ts";
import { ofOwner } from "./gathered.ts";
import { barrier, type Ownership } from "./ownership.ts";
import type { CollectiveStage, ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";
import { BLOCK_TILES, type Span, type Spans, spanRef } from "./spans.ts";
import { leavesOf, renumber, treeGraph } from "./tree-graph.ts";
import { leafOf, type Wave } from "./waves.ts";

/** The gradients of one piece. */
export interface GradientBucket {
  readonly name: string;
  readonly spans: Spans;
  /** Which of the buffers it has. */
  readonly buffer: number;
}

/** Where the micro-batch of a rank (by its place) in a lane has left what is summed. */
export type Leaf = (owner: number, lane: number) => TensorRef;

export interface BucketSumsOptions {
  readonly ownership: Ownership;
  /** Micro-batches of each rank in a wave. */
  readonly lanes: number;
}

export class BucketSums {
  readonly #program: ProgramBuilder;
  readonly #options: BucketSumsOptions;
  /** By bucket, lane and how many ranks have a micro-batch there. */
  readonly #exchanges = new Map<string, readonly CollectiveStage[]>();

  constructor(program: ProgramBuilder, options: BucketSumsOptions) {
    this.#program = program;
    this.#options = options;
  }

  /** Room for what other ranks send of the largest of the buckets. */
  allocate(buckets: readonly GradientBucket[]): void {
    const { ownership, lanes } = this.#options;
    if (ownership.isInPlace) return;
    const bytes = Math.max(0, ...buckets.map(({ spans }) => this.#received(spans).byteLength));
    for (let lane = 0; lane < lanes; lane++) {
      this.#program.shared.add(this.#program.buffer(receivedBuffer(lane), bytes));
    }
  }

  /** Sums what this rank looks after, out of what all ranks have made in a wave. */
  stages(wave: Wave, bucket: GradientBucket): (RunStage | CollectiveStage)[] {
    const { name, spans, buffer } = bucket;
    const { ownership, lanes } = this.#options;
    const { place, isInPlace } = ownership;
    const received = this.#received(spans);
    const runs = spans
      .blocks(ownership, BLOCK_TILES)
      .filter(({ owner }) => owner === place)
      .flatMap(({ span }) =>
        this.sums(wave, span, (owner, lane) =>
          isInPlace
            ? ofOwner(ownership, owner, spans.placeOf(span, bucketBuffer(buffer, lane)))
            : received.placeOf(span, owner, receivedBuffer(lane)),
        ),
      );
    const sum: RunStage = { name, runs, mode: "parallel" };
    if (isInPlace) {
      const [there, read] = [`${name} are there`, `${name} are read`];
      return [barrier(ownership, there), sum, barrier(ownership, read)];
    }
    const exchanges = Array.from({ length: lanes }, (_, lane) => {
      const givers = ownership.ranks.filter((_, from) => from * lanes + lane < wave.count).length;
      return givers === 0 ? [] : this.#exchange(bucket, lane, givers);
    });
    return [...exchanges.flat(), sum];
  }

  /** The sums of a wave for one span. */
  sums({ sums }: Wave, span: Span, leaf: Leaf): Run[] {
    const { lanes } = this.#options;
    const type = { dtype: span.group.dtype, shape: [span.end - span.start] };
    return sums.map(({ accumulator, combination }): Run => {
      const used = leavesOf(combination);
      const shape = renumber(combination, used);
      const graph = treeGraph(this.#program, shape, { count: used.length, type, tiles: 1 });
      const inputs = used.map((id, part) => {
        const source = leafOf(id);
        const ref =
          "accumulator" in source
            ? spanRef(span, gradientBuffer(source.accumulator))
            : leaf(Math.floor(source.microBatch / lanes), source.microBatch % lanes);
        return [`part.${part}.0`, ref] as const;
      });
      const outputs = { "total.0": spanRef(span, gradientBuffer(accumulator)) };
      return { graph, inputs: Object.fromEntries(inputs), outputs };
    });
  }

  /** The first so many ranks give each owner what it looks after of theirs. */
  #exchange(
    { name, spans, buffer }: GradientBucket,
    lane: number,
    givers: number,
  ): readonly CollectiveStage[] {
    const key = `${name} ${lane} ${givers}`;
    const known = this.#exchanges.get(key);
    if (known !== undefined) return known;
    const { ownership } = this.#options;
    const received = this.#received(spans);
    const stages = spans.runs(ownership).map(({ counts, ...span }, index): CollectiveStage => {
      const { place, group } = ownership;
      const sendCounts = counts.map((count) => (place < givers ? count : 0));
      const receiveCounts = counts.map((_, from) => (from < givers ? (counts[place] ?? 0) : 0));
      const { byteOffset } = spans.placeOf(span, bucketBuffer(buffer, lane));
      return {
        name: `${name} to those who sum them`,
        mode: "collective",
        group,
        call: { kind: "allToAll", sendCounts, receiveCounts, dtype: span.group.dtype },
        data: { buffer: bucketBuffer(buffer, lane), byteOffset },
        into: { buffer: receivedBuffer(lane), byteOffset: received.offsets[index] ?? 0 },
      };
    });
    this.#exchanges.set(key, stages);
    return stages;
  }

  /** Where what this rank looks after of a bucket lies when it was received: run after run, and in each, rank after rank. */
  #received(spans: Spans): Received {
    const { ownership } = this.#options;
    const { place, ranks } = ownership;
    const runs = spans.runs(ownership).map(({ counts, ...run }) => {
      const before = counts.slice(0, place).reduce((sum, count) => sum + count, 0);
      return { ...run, start: run.start + before, count: counts[place] ?? 0 };
    });
    const offsets: number[] = [];
    let byteLength = 0;
    for (const { group, count } of runs) {
      // For elements of any width.
      byteLength = Math.ceil(byteLength / 64) * 64;
      offsets.push(byteLength);
      byteLength += ranks.length * count * bytesPerElement(group.dtype);
    }
    const placeOf = ({ group, start, end }: Span, owner: number, buffer: string): TensorRef => {
      const at = runs.findIndex(
        (run) => run.group === group && run.start <= start && end <= run.start + run.count,
      );
      const { start: first, count } = runs[at] as (typeof runs)[number];
      const elements = owner * count + (start - first);
      const byteOffset = (offsets[at] as number) + elements * bytesPerElement(group.dtype);
      return { buffer, byteOffset, type: { dtype: group.dtype, shape: [end - start] } };
    };
    return { byteLength, offsets, placeOf };
  }
}

interface Received {
  readonly byteLength: number;
  /** By run of the spans. */
  readonly offsets: readonly number[];
  /** What a rank (by its place) has sent of a span. */
  placeOf(span: Span, owner: number, buffer: string): TensorRef;
}
