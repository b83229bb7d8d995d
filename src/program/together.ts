/**
 * Small numbers that every rank of a group has for itself, brought together: each rank writes its
 * own at its place of a buffer; then all ranks have those of all, and sum them by themselves.
 */
import { entryRef, type Layout, type LayoutGroup } from "./layout.ts";
import {
  allGather,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type TensorRef,
} from "./program.ts";
import { treeRun } from "./runs.ts";
import type { Combination } from "./shares.ts";
import { spanRef, wholeSpan } from "./spans.ts";

export interface TogetherOptions {
  readonly layout: Layout;
  /** The name of the group of ranks, their number, and the place of this one. */
  readonly group: string;
  readonly ranks: number;
  readonly place: number;
}

export class Together {
  readonly layout: Layout;
  readonly #program: ProgramBuilder;
  readonly #options: TogetherOptions;

  constructor(program: ProgramBuilder, options: TogetherOptions) {
    this.layout = options.layout;
    this.#program = program;
    this.#options = options;
  }

  allocate(buffer: string): void {
    const bytes = this.#options.ranks * this.layout.byteLength;
    this.#program.shared.add(this.#program.buffer(buffer, bytes));
  }

  /** The place where this rank writes a value; undefined if the layout does not have it. */
  ref(name: string, buffer: string): TensorRef | undefined {
    const found = entryRef(this.layout, buffer, name);
    return found && this.#at(this.#options.place, found);
  }

  /** What the rank at a place has written of a group of the layout. */
  of(place: number, group: LayoutGroup, buffer: string): TensorRef {
    return this.#at(place, spanRef(wholeSpan(group), buffer));
  }

  /** Afterwards this rank has what all have written. */
  gather(buffer: string, name: string): CollectiveStage[] {
    const { group, ranks } = this.#options;
    const { byteLength } = this.layout;
    if (byteLength === 0) return [];
    const counts = new Array<number>(ranks).fill(byteLength);
    return [allGather(name, group, { counts, dtype: "uint8" }, { buffer, byteOffset: 0 })];
  }

  /** Each rank finds the sums, one rank after the other, where it has written its own. */
  summed(buffer: string, name: string): (RunStage | CollectiveStage)[] {
    const { ranks, place } = this.#options;
    const order = inOrder(0, ranks);
    const runs = this.layout.groups.map((group): Run => {
      const total = this.of(place, group, buffer);
      return treeRun(this.#program, order, [total], (at) => this.of(at, group, buffer));
    });
    return [...this.gather(buffer, `${name} of all`), { name, runs, mode: "small" }];
  }

  #at(place: number, ref: TensorRef): TensorRef {
    return { ...ref, byteOffset: ref.byteOffset + place * this.layout.byteLength };
  }
}

/** A chain of more additions would be deeper than functions can call each other. */
const LONGEST = 1024;

/** One after the other; of many thousand, in two halves each of which is added so. */
function inOrder(first: number, count: number): Combination {
  if (count > LONGEST) {
    const half = Math.ceil(count / 2);
    return [inOrder(first, half), inOrder(first + half, count - half)];
  }
  const others = Array.from({ length: count - 1 }, (_, index) => first + index + 1);
  return others.reduce<Combination>((sum, at) => [sum, at], first);
}
