/**
 * Sums of the gradients of one piece of the pass, which lie together in a buffer for each lane. The
 * ranks that own them sum them: in place out of the memory of all, or out of what all have sent.
 */
import { bytesPerElement } from "../tensor/index.ts";
import { bucketBuffer, gradientBuffer, receivedBuffer } from "./buffers.ts";
import { type Ownership, ofOwner } from "./ownership.ts";
import {
  barrier,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type TensorRef,
} from "./program.ts";
import type { OwnerRun, Room } from "./room.ts";
import { type Span, spanRef } from "./spans.ts";
import { type Wave, waveRuns } from "./waves.ts";

/** The gradients of one piece. */
export interface GradientBucket {
  readonly name: string;
  readonly room: Room;
  /** The index of its buffer. */
  readonly buffer: number;
}

/** The place where the micro-batch of a rank (by its place) in a lane has left what is summed. */
type Leaf = (owner: number, lane: number) => TensorRef;

export class BucketSums {
  readonly #program: ProgramBuilder;
  readonly #ownership: Ownership;
  readonly #lanes: number;
  /** By bucket, lane and the number of ranks that have a micro-batch there. */
  readonly #exchanges = new Map<string, readonly CollectiveStage[]>();

  /** @param lanes the number of micro-batches of each rank in a wave */
  constructor(program: ProgramBuilder, ownership: Ownership, lanes: number) {
    this.#program = program;
    this.#ownership = ownership;
    this.#lanes = lanes;
  }

  /** Makes room for what other ranks send of the largest of the buckets. */
  allocate(buckets: readonly GradientBucket[]): void {
    if (this.#ownership.isInPlace) return;
    const bytes = Math.max(0, ...buckets.map(({ room }) => this.#received(room).byteLength));
    for (let lane = 0; lane < this.#lanes; lane++) {
      this.#program.shared.add(this.#program.buffer(receivedBuffer(lane), bytes));
    }
  }

  /** Sums the spans that this rank owns, out of what all ranks have made in a wave. */
  stages(wave: Wave, bucket: GradientBucket): (RunStage | CollectiveStage)[] {
    const { name, room, buffer } = bucket;
    const { place, isInPlace, ranks, group } = this.#ownership;
    const received = this.#received(room);
    const own = room.blocks(this.#ownership).filter(({ owner }) => owner === place);
    const runs = own.flatMap(({ span }) =>
      this.sums(wave, span, (owner, lane) =>
        isInPlace
          ? ofOwner(this.#ownership, owner, room.placeOf(span, bucketBuffer(buffer, lane)))
          : received.placeOf(span, owner, receivedBuffer(lane)),
      ),
    );
    const sum: RunStage = { name, runs, mode: "parallel" };
    if (isInPlace) {
      return [barrier(`${name} are there`, group), sum, barrier(`${name} are read`, group)];
    }
    const exchanges = Array.from({ length: this.#lanes }, (_, lane) => {
      const givers = ranks.filter((__, from) => from * this.#lanes + lane < wave.count).length;
      return givers === 0 ? [] : this.#exchange(bucket, lane, givers);
    });
    return [...exchanges.flat(), sum];
  }

  /** The sums of a wave for one span. */
  sums(wave: Wave, span: Span, leaf: Leaf): Run[] {
    return waveRuns(this.#program, wave, 1, {
      accumulator: (index) => spanRef(span, gradientBuffer(index)),
      microBatch: (index) => leaf(Math.floor(index / this.#lanes), index % this.#lanes),
    });
  }

  /** The first `givers` ranks send to each owner what it owns of theirs. */
  #exchange(
    { name, room, buffer }: GradientBucket,
    lane: number,
    givers: number,
  ): readonly CollectiveStage[] {
    const key = `${name} ${lane} ${givers}`;
    const known = this.#exchanges.get(key);
    if (known !== undefined) return known;
    const { place, group } = this.#ownership;
    const received = this.#received(room);
    const stages = received.runs.map(({ counts, ...span }, index): CollectiveStage => {
      const sendCounts = counts.map((count) => (place < givers ? count : 0));
      const receiveCounts = counts.map((_, from) => (from < givers ? (counts[place] ?? 0) : 0));
      const { byteOffset } = room.placeOf(span, bucketBuffer(buffer, lane));
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

  /** The places of what this rank receives of a bucket: run after run; in each, rank after rank. */
  #received(room: Room): Received {
    const { place, ranks } = this.#ownership;
    const runs = room.runs(this.#ownership);
    const own = runs.map(({ group, start, counts }): Span => {
      const first = counts.slice(0, place).reduce((sum, count) => sum + count, start);
      return { group, start: first, end: first + (counts[place] ?? 0) };
    });
    let byteLength = 0;
    const offsets = own.map(({ group, start, end }) => {
      // Elements of any width can lie here.
      const byteOffset = Math.ceil(byteLength / 64) * 64;
      byteLength = byteOffset + ranks.length * (end - start) * bytesPerElement(group.dtype);
      return byteOffset;
    });
    const placeOf = ({ group, start, end }: Span, owner: number, buffer: string): TensorRef => {
      const at = own.findIndex(
        (run) => run.group === group && run.start <= start && end <= run.end,
      );
      const run = own[at] as Span;
      const elements = owner * (run.end - run.start) + (start - run.start);
      const byteOffset = (offsets[at] as number) + elements * bytesPerElement(group.dtype);
      return { buffer, byteOffset, type: { dtype: group.dtype, shape: [end - start] } };
    };
    return { runs, byteLength, offsets, placeOf };
  }
}

interface Received {
  readonly runs: readonly OwnerRun[];
  readonly byteLength: number;
  /** By run. */
  readonly offsets: readonly number[];
  /** What a rank (by its place) has sent of a span. */
  placeOf(span: Span, owner: number, buffer: string): TensorRef;
}
